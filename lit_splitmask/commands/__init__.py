"""The commands behind :mod:`lit_splitmask.cli`."""
