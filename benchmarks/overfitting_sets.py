"""Used by ``overfitting.py``: the sets of images and the signals."""

from dataclasses import dataclass

from lit_splitmask.callbacks import KNN, HeldOutLoss, Linear, LossGap, RankMe, ShortFinetune


@dataclass(frozen=True)
class Setting:
    """A set of images, and how it is trained on.

    Attributes:
        label_share: Share of the training images that are used.
        steps_per_pass: Number of these images over the batch size.
        image_size: Side of the images, in pixels.
        patch_size: Side of the patches, in pixels.
        words: Number of visual words.
        hflip: Probability of a flip, in both stages.
        at_passes: Passes after which checkpoints are saved; training ends after the last of them.
        finetunings: Number of fine-tunings of each checkpoint.
    """

    label_share: float
    steps_per_pass: int
    image_size: int
    patch_size: int
    words: int
    hflip: float
    at_passes: tuple[int, ...] = (0, 25, 50, 100, 200, 350, 500, 750, 1000, 1500, 2000)
    finetunings: int = 2

    @property
    def num_steps(self) -> int:
        """Steps of the whole pre-training."""
        return self.at_passes[-1] * self.steps_per_pass


SIGNALS = [HeldOutLoss(), LossGap(), RankMe(), KNN(), Linear(), ShortFinetune()]
DIRECTIONS = {signal.name: signal.better for signal in SIGNALS}
FAR = (0, 25, 100, 250, 500, 1000, 2000, 3000, 5000, 7500, 10000)
SETS = {
    "trashnet": Setting(0.17, 3, 32, 8, 512, 0.5),
    "digits": Setting(0.238, 3, 16, 4, 64, 0.0),
    "trashnet100": Setting(0.0567, 1, 32, 8, 256, 0.5, at_passes=FAR, finetunings=4),
}
