"""The settings that datamodules pass on to their base classes, by name and type, for editors and type checkers.

A constructor that ends in ``**settings: Settings[CropSettings]`` takes all keys of ``CropSettings``. The defaults are those of
the base classes: jsonargparse follows ``**settings`` to them, and :class:`FullSignature` shows them.
"""

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from lit_splitmask.augment.base import Augment
from lit_splitmask.images.index import SplitOptions
from lit_splitmask.images.statistics import StatisticsKind
from lit_splitmask.loading.budget import Budget

if TYPE_CHECKING:
    from typing import Unpack as Settings
else:

    class Settings:
        """``typing.Unpack`` for type checkers; otherwise ``Any``, since jsonargparse would take its keys without defaults."""

        def __class_getitem__(cls, _: type) -> Any:
            return Any


class ImageSettings(TypedDict, total=False):
    """Settings of :class:`ImageData` besides ``image_size``."""

    channels: Literal[1, 3]
    window: str | tuple[float, float] | None
    batch_size: int
    budget: Budget | None
    num_epochs: int | None
    label_share: float
    seed: int
    num_workers: int | None


class JointSettings(ImageSettings, total=False):
    """And those of :class:`JointData`."""

    unlabelled_share: float


class CropSettings(JointSettings, total=False):
    """And those of :class:`CropData`."""

    augment: Augment | None
    crop_ratio: float
    eval_batch_size: int | None
    balance: float


class FileSettings(CropSettings, total=False):
    """And those of :class:`FileData`."""

    statistics: StatisticsKind
    cache_gb: float
    index_dir: str


class OwnSettings(FileSettings, total=False):
    """And those of :class:`OwnData`."""

    splits: SplitOptions
    pool: Sequence[str]


class FullSignature:
    """The ``__signature__`` of a class whose constructor passes ``**settings`` on: its arguments, then those of its bases."""

    def __get__(self, instance: object, owner: type) -> inspect.Signature:
        found: dict[str, inspect.Parameter] = {}
        for function in [vars(base)["__init__"] for base in owner.__mro__ if "__init__" in vars(base)]:
            _, *parameters = inspect.signature(function).parameters.values()
            own = {parameter.name: parameter for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD}
            inherited = {name: parameter.replace(kind=parameter.KEYWORD_ONLY) for name, parameter in own.items()}
            found = {**found, **(inherited if found else own), **found}
            if len(own) == len(parameters):
                break
        return inspect.Signature(list(found.values()))
