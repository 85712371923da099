"""``lit-splitmask plan``: what a folder holds, and what training on it would cost."""
