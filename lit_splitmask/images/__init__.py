"""Images on disk: decoded, laid out, scanned, split, recorded, cached."""
