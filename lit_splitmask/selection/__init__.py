"""Chooses the checkpoint to keep: signals, the snapshot they are measured on, the rule that decides, tables and curves."""
