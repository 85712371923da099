"""``lit-splitmask compare``: is pre-training on these images worth it?"""
