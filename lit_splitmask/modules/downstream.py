"""What fine-tuning for any task shares: a backbone from a file or at random, in a network for the images' classes."""

import logging
from abc import abstractmethod
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lit_splitmask.checkpoints import Weights, config_of, load_into, load_weights
from lit_splitmask.errors import UserError
from lit_splitmask.models.vit import ViTConfig
from lit_splitmask.modules.base import TrainModule
from lit_splitmask.optim import OptimConfig
from lit_splitmask.seeding import derive_seed

log = logging.getLogger(__name__)


class DownstreamModule(TrainModule):
    """A network around a pre-trained or new backbone, for the classes of the attached datamodule.

    It is built when the number of classes is known: at once, or when a trainer attaches a datamodule.

    Args:
        weights: a pre-trained backbone (a file of this project or of timm); ``None``: random initialisation.
        backbone: shape of the ViT; ``None``: that of ``weights``, or the module's default. Positions that ``weights`` has learned
            are used whatever it says.
        optim: optimizer and schedule.
        drop_path: stochastic depth.
        seed: of the new layers and of everything random in the steps.

    Attributes:
        kind: what the network is called; in a file the names of its tensors begin with it, but for the backbone's.
        backbone_prefix: what the names of the backbone's tensors begin with in the network; a file has timm's names.
        needs: which images it can be trained on, for messages.
        class_names: by label, once they are known.
    """

    kind: ClassVar[str]
    backbone_prefix: ClassVar[str]
    needs: ClassVar[str]
    least_classes: ClassVar[int] = 2
    default_backbone: ClassVar[ViTConfig] = ViTConfig()
    network: nn.Module | None

    def __init__(
        self, weights: str | None, *, backbone: ViTConfig | None, optim: OptimConfig, drop_path: float, seed: int
    ) -> None:
        loaded = load_weights(weights) if weights is not None else None
        shape = backbone or (config_of(loaded) if loaded else self.default_backbone)
        config = replace(shape, drop_path=drop_path).resolved()
        if loaded is not None and config.positions == "sincos" and config_of(loaded).positions == "learned":
            log.warning("%s has learned positions, so the backbone gets them too, not positions=sincos.", weights)
            config = replace(config, positions="learned")
        super().__init__(optim, seed, config.in_chans)
        if loaded is not None and "pixel_mean" in loaded.info:
            self.set_statistics(loaded.info["pixel_mean"], loaded.info["pixel_std"])
        self._config, self._weights = config, loaded
        self.class_names: list[str] | None = None
        self.network = None

    @property
    @abstractmethod
    def num_classes(self) -> int:
        """Of the network."""

    @abstractmethod
    def make_network(self, config: ViTConfig, num_classes: int) -> nn.Module:
        """The network around a new backbone."""

    def after_building(self, num_classes: int) -> None:
        """Makes what else depends on the classes, such as metrics."""

    def about(self) -> dict[str, Any]:
        """What an exported file says of the network, beside its classes' names: JSON values."""
        return {}

    def take(self, about: dict[str, Any]) -> None:
        """Takes what :meth:`about` said, before the network is built from a file."""

    def setup(self, stage: str) -> None:
        """Builds the network for the datamodule's classes, channels and image size, if it is not built; checks that they fit.

        Raises:
            UserError: They do not fit.
        """
        channels = self.data.channels
        if channels is not None and self.network is None:
            self._config = replace(self._config, in_chans=channels)
            self.in_chans = channels
        super().setup(stage)
        num_classes = self.data.num_classes
        if self.network is None:
            if num_classes is None:
                raise UserError(f"The number of classes is unknown: give a datamodule of {self.needs}.")
            self.fit_backbone()
            self.build(num_classes)
        if num_classes and num_classes != self.num_classes:
            raise UserError(f"The network has {self.num_classes} classes, but the images have {num_classes}.")
        self.check_images()
        self._take_names(list(self.data.class_names))

    def fit_backbone(self) -> None:
        """Makes the backbone's image size that of the datamodule, before the network is built."""
        self._config = replace(self._config, image_size=self.data.image_size or self._config.image_size)

    def check_images(self) -> None:
        """Checks that the datamodule's images are as large as the network takes them.

        Raises:
            UserError: They are not.
        """
        size, expected = self.data.image_size, self.vit.config.image_size
        if size is not None and size != expected:
            raise UserError(
                f"The datamodule gives images of {size} px, but the network takes {expected} px: give both the same image_size."
            )

    def _take_names(self, names: list[str]) -> None:
        if self.class_names is None:
            self.class_names = names or [str(number) for number in range(self.num_classes)]
        elif names and not self.fits(names):
            raise UserError(
                f"The network knows the classes {', '.join(self.class_names)}, but the images have {', '.join(names)}: "
                "give images of the same classes, or without labels."
            )

    def fits(self, names: list[str]) -> bool:
        """Whether images with classes of these names can be evaluated on."""
        return names == self.class_names

    def build(self, num_classes: int) -> None:
        """Makes the network for that many classes and loads the weights; :meth:`setup` does it if it is not done.

        Raises:
            UserError: There are too few classes, or the weights do not fit the backbone.
        """
        if num_classes < self.least_classes:
            raise UserError(
                f"A {self.kind} needs at least {'one class' if self.least_classes == 1 else 'two classes'}, and the training "
                f"images have {num_classes}: give {self.needs}."
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self.seed, "initial weights"))
            self.network = self.make_network(self._config, num_classes)
        if self._weights is not None:
            load_into(self.vit, self._weights)
            self.tell_of_positions(self._weights)
        self._weights = None
        self.after_building(num_classes)

    def tell_of_positions(self, weights: Weights) -> None:
        """Says that learned positions were interpolated, where they were."""
        known = weights.state["pos_embed"].shape[1] - ("cls_token" in weights.state)
        if self.vit.config.positions == "learned" and known != self.vit.num_patches:
            log.info(
                "The learned positions of %s, of %d patches, are interpolated to %d, which costs accuracy until they have "
                "adapted; a backbone pre-trained with positions=sincos fits any size.",
                weights.source,
                known,
                self.vit.num_patches,
            )

    def exported(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What an exported file holds beside the backbone: the other tensors, and what is needed to predict with them."""
        assert self.network is not None, "the network is built in setup()"
        tensors = {
            f"{self.kind}.{name}": value
            for name, value in self.network.state_dict().items()
            if not name.startswith(self.backbone_prefix)
        }
        names = self.class_names or [str(number) for number in range(self.num_classes)]
        return tensors, {"class_names": names, **({self.kind: about} if (about := self.about()) else {})}

    def is_whole(self, weights: Weights) -> bool:
        """Whether a file holds the head too."""
        return self.kind in weights.info

    def restore(self) -> None:
        """Builds the whole network as its file describes it, head included, in place of a new one.

        Raises:
            UserError: The weights are a backbone's, or another kind of network's.
        """
        loaded, self._weights = self._weights, None
        if loaded is None or not self.is_whole(loaded):
            given = "none was given" if loaded is None else f"{loaded.source} is none"
            raise UserError(f"keep_head needs a trained {self.kind}, and {given}: give a {self.kind}.safetensors.")
        self.take(loaded.info.get(self.kind, {}))
        self.class_names = list(loaded.info["class_names"])
        self.build(len(self.class_names))
        assert self.network is not None
        own = f"{self.kind}."
        self.network.load_state_dict(
            {
                name.removeprefix(own) if name.startswith(own) else f"{self.backbone_prefix}{name}": value
                for name, value in loaded.state.items()
            }
        )
