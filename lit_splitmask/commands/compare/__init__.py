"""``lit-splitmask compare``: is pre-training worth it on these images?"""
