"""``lit-splitmask export``: a trained network for use without this project."""
