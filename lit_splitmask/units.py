"""Durations and sizes as readable text."""


def duration(seconds: float) -> str:
    """Formats seconds as ``2:03:04``, or as ``1 d 2:03:04`` from one day on."""
    days, rest = divmod(int(seconds), 86_400)
    text = f"{rest // 3600}:{rest % 3600 // 60:02d}:{rest % 60:02d}"
    return f"{days} d {text}" if days else text


def size(num_bytes: int) -> str:
    """Formats a number of bytes with a binary unit up to GiB, such as ``1.5 GiB``."""
    value, units = float(num_bytes), ["B", "KiB", "MiB", "GiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:.3g} {units[0]}" if value < 1000 else f"{value:,.0f} {units[0]}"
