"""What the paper's tables say about its datasets, which are named as in Table 3. Data only."""

TABLE_3 = {
    "ImageNet": 300,
    "iNaturalist 2018": 800,
    "iNaturalist 2019": 1_400,
    "Food-101": 5_000,
    "Stanford Cars": 5_000,
    "Clipart": 5_000,
    "Painting": 5_000,
    "Sketch": 5_000,
    "ADE20K": 21_000,
    "COCO": 3_000,
}
"""Epochs of pre-training."""

TABLE_9 = (
    "iNaturalist 2018",
    "iNaturalist 2019",
    "Food-101",
    "Stanford Cars",
    "Clipart",
    "Painting",
    "Sketch",
)  # fmt: skip
"""Datasets with hyper-parameters of fine-tuning."""
