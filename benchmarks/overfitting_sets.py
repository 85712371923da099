"""Used by ``overfitting.py``: the sets of images, how they are trained on, and the signals."""

import ast
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from lit_splitmask.augment.base import Augment
from lit_splitmask.callbacks import KNN, HeldOutLoss, Linear, LossGap, RankMe, ShortFinetune
from lit_splitmask.datamodules import MultiCrop, PretrainAugment
from lit_splitmask.files import write_atomically
from lit_splitmask.masking import BlockMasking
from lit_splitmask.objectives import DINO, MAE, InstanceDiscrimination, MoCoV3, SplitMask
from lit_splitmask.tokenizers import KMeans

SIGNALS = [HeldOutLoss(), LossGap(), RankMe(), KNN(), Linear(), ShortFinetune()]
DIRECTIONS = {signal.name: signal.better for signal in SIGNALS}


@dataclass(frozen=True)
class Setting:
    """A set of images, and how it is trained on.

    Attributes:
        label_share: Share of the training images that are pre-trained on.
        steps_per_pass: Number of these images over the batch size.
        image_size: Side of the images, in pixels.
        patch_size: Side of the patches, in pixels.
        words: Number of visual words.
        hflip: Probability of a flip, in both stages.
        at_passes: Passes after which checkpoints are saved; training ends after the last of them.
        finetunings: Number of fine-tunings of each checkpoint.
        finetune_share: Share of the training images that are fine-tuned on; None for ``label_share``.
        finetune_passes: Passes over them.
        batch_size: Images per step of pre-training.
        method: One of :data:`METHODS`.
        embed_dim, depth: Width and number of blocks of the ViT; its heads are 32 wide.
        lr, min_lr: Learning rate after the warm-up and at the end; equal ones keep it constant.
        weight_decay: Weight decay of pre-training.
        min_scale: Least share of the image in a crop of pre-training.
        colour: Probability of changing the colours of a crop of pre-training, for methods of two crops.
        signals: Names of the signals that are measured.
    """

    label_share: float
    steps_per_pass: int
    image_size: int
    patch_size: int
    words: int
    hflip: float
    at_passes: tuple[int, ...] = (0, 25, 50, 100, 200, 350, 500, 750, 1000, 1500, 2000)
    finetunings: int = 2
    finetune_share: float | None = None
    finetune_passes: int = 100
    batch_size: int = 100
    method: str = "SplitMask"
    embed_dim: int = 128
    depth: int = 4
    lr: float = 1.5e-3
    min_lr: float = 1e-5
    weight_decay: float = 0.05
    min_scale: float = 0.8
    colour: float = 0.0
    signals: tuple[str, ...] = tuple(DIRECTIONS)

    @property
    def num_steps(self) -> int:
        """Steps of the whole pre-training."""
        return self.at_passes[-1] * self.steps_per_pass

    def objective(self) -> Any:
        """Makes the objective of pre-training from a backbone."""
        if self.method == "SplitMask":
            words = partial(KMeans, vocabulary=self.words, pixels="centred")
            return partial(SplitMask, masking=BlockMasking(), tokenizer=words)
        return METHODS[self.method]

    def augment(self) -> Augment:
        """The augmentation of pre-training: one crop, or two for DINO and MoCo v3."""
        crop = PretrainAugment(min_scale=self.min_scale, hflip=self.hflip, color_jitter=self.colour)
        return MultiCrop(crop, crop) if self.method in ("DINO", "MoCoV3") else crop

    def changed(self, changes: Sequence[str]) -> "Setting":
        """The setting with other values, given as ``field=value``; several numbers are separated by commas."""
        known = {field.name for field in fields(self)}
        values = {}
        for change in changes:
            name, _, text = change.partition("=")
            if name not in known:
                raise SystemExit(f"--change {change}: there is no {name}, only {', '.join(sorted(known))}.")
            values[name] = text if name == "method" else ast.literal_eval(text)
        return replace(self, **values)

    def record(self, folder: Path) -> None:
        """Writes the setting beside the runs; stops if those there have another."""
        path = folder / "setting.json"
        if path.exists() and Setting.recorded(folder) != self:
            raise SystemExit(f"{folder} holds runs of another setting: give --name.")
        write_atomically(path, json.dumps(asdict(self), indent=1).encode())

    @classmethod
    def recorded(cls, folder: Path) -> "Setting":
        """The setting that :meth:`record` wrote."""
        stored = json.loads((folder / "setting.json").read_text())
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()})


METHODS: dict[str, Any] = {
    "SplitMask": SplitMask,
    "MAE": partial(MAE, decoder_dim=64, decoder_depth=1, decoder_heads=2),
    "DINO": partial(DINO, num_prototypes=1024, hidden_dim=512, bottleneck_dim=128, momentum=0.99),
    "MoCoV3": partial(MoCoV3, hidden_dim=512, output_dim=128),
    "InstanceDiscrimination": InstanceDiscrimination,
}
FAR = (0, 25, 100, 250, 500, 1000, 2000, 3000, 5000, 7500, 10000)
SETS = {
    "trashnet": Setting(0.17, 3, 32, 8, 512, 0.5),
    "digits": Setting(0.238, 3, 16, 4, 64, 0.0),
    "trashnet100": Setting(0.0567, 1, 32, 8, 256, 0.5, at_passes=FAR, finetunings=4),
}
