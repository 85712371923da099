"""The base of datamodules that crop images to squares: all except segmentation and detection."""

from torch.utils.data import Dataset

from lit_splitmask.augment.base import Augment
from lit_splitmask.augment.evaluate import EvalTransform
from lit_splitmask.augment.pretrain import PretrainAugment
from lit_splitmask.datamodules.checks import check_counts
from lit_splitmask.datamodules.joint_data import JointData
from lit_splitmask.datamodules.settings import JointSettings, Settings
from lit_splitmask.errors import UserError
from lit_splitmask.loading.crops import IndexedImages
from lit_splitmask.loading.samples import Samples

_MOST_EVAL_IMAGES = 256


class CropData(JointData):
    """Augmented crops for training, centre crops for evaluation.

    Args:
        image_size: Side of the crops, in pixels.
        augment: Augmentation of training images; None for :class:`PretrainAugment` with its defaults.
        crop_ratio: Share of the short side that centre crops cover.
        eval_batch_size: Images per evaluation batch of a process; None for ``batch_size``, at most 256.
        **settings: Settings of :class:`JointData` and :class:`ImageData`.

    Raises:
        UserError: ``eval_batch_size`` is less than 1, ``crop_ratio`` is outside (0, 1], or a setting of :class:`JointData` or
            :class:`ImageData` is out of range.
    """

    crop_ratio: float

    def __init__(
        self,
        *,
        image_size: int = 224,
        augment: Augment | None = None,
        crop_ratio: float = 0.875,
        eval_batch_size: int | None = None,
        **settings: Settings[JointSettings],
    ) -> None:
        super().__init__(image_size=image_size, **settings)
        check_counts(eval_batch_size=eval_batch_size)
        self.eval_batch_size = eval_batch_size or min(self.batch_size, _MOST_EVAL_IMAGES)
        if not 0 < crop_ratio <= 1:
            raise UserError(f"crop_ratio={crop_ratio} must be more than 0 and at most 1; the usual value is 0.875.")
        self.augment = augment or PretrainAugment()
        self.crop_ratio = crop_ratio

    @property
    def repeats(self) -> int:
        """Number of differently augmented copies of a training image in a row."""
        return self.augment.repeats

    @property
    def crop_sizes(self) -> list[int]:
        """Sides of the crops of one training image, in pixels."""
        return self.augment.sizes(self.image_size)

    def train_images(self) -> Dataset:
        """Augmented crops."""
        transform, *more = self.augment.build_all(self.image_size)
        return IndexedImages(
            self.train_samples,
            self.source.read,
            transform=transform,
            more=more,
            channels=self.channels,
            seed=self.seed,
        )

    def eval_images(self, samples: Samples) -> IndexedImages:
        """Centre crops."""
        transform = EvalTransform(self.image_size, self.crop_ratio)
        return IndexedImages(samples, self.source.read, transform=transform, channels=self.channels)
