"""Pre-train vision transformers on your own small image dataset, and learn whether it was worth it."""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # albumentations asks the network for updates when imported

__version__ = "0.1.0"
