"""Image folders on disk: decoding, layout, scan, splits, index, pixel cache, statistics."""
