"""The tasks that ``finetune`` can train for."""
