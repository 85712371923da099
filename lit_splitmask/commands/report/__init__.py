"""The command ``report``: a run or a comparison as one HTML page."""
