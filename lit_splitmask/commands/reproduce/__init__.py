"""``lit-splitmask reproduce``: the paper's tables and figures, row by row."""
