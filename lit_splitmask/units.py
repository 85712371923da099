"""Durations and sizes for people."""


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss, with the days first if there are any."""
    days, rest = divmod(int(seconds), 86_400)
    text = f"{rest // 3600}:{rest % 3600 // 60:02d}:{rest % 60:02d}"
    return f"{days} d {text}" if days else text


def size(num_bytes: int) -> str:
    """A number of bytes with a unit: ``1.5 GiB``."""
    value, units = float(num_bytes), ["B", "KiB", "MiB", "GiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:.3g} {units[0]}" if value < 1000 else f"{value:,.0f} {units[0]}"
