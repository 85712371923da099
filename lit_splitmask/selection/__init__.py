"""Which checkpoint to keep: signals, what they are measured on, the rule that decides, and the curves."""
