"""Shared by fine-tuning for any task: a backbone, from a file or random, in a network for the classes of the images."""

import logging
from abc import abstractmethod
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lit_splitmask.checkpoints import FORMAT, Weights, config_of, load_into, load_weights, report_positions
from lit_splitmask.errors import UserError
from lit_splitmask.models.vit import ViTConfig
from lit_splitmask.modules.base import NETWORK, TrainModule
from lit_splitmask.optim import OptimConfig
from lit_splitmask.seeding import derive_seed

log = logging.getLogger(__name__)


class DownstreamModule(TrainModule):
    """A network around a pre-trained or new backbone, for the classes of the datamodule.

    The network is built when the number of classes is known: in the constructor, or when a trainer attaches a datamodule.

    Args:
        weights: A pre-trained backbone (a file of this project or of timm); ``None`` for random initialisation.
        backbone: Shape of the ViT; ``None`` for that of ``weights``, or the module's default. If ``weights`` has learned
            positions, they are used regardless of ``backbone.positions``.
        optim: Optimizer and schedule.
        drop_path: Rate of stochastic depth.
        seed: Seed of the new layers and of everything random in the training steps.
        trained_blocks: Number of blocks at the end of the backbone that are trained, with everything after them; the rest of the
            backbone is frozen. ``None`` trains everything.

    Attributes:
        kind: Name of this kind of network; in a file the names of its tensors begin with it, except those of the backbone.
        backbone_prefix: Prefix of the backbone's tensors in the network; a file has timm's names without it.
        required_images: Images that it can be trained on, for messages.
        min_classes: Least number of classes.
        default_backbone: Shape of the backbone if neither weights nor a shape are given.
        class_names: Class names by label; None until they are known.

    Raises:
        UserError: The weights cannot be read, the shape of the backbone is not valid, or ``trained_blocks`` is not a number of
            its blocks, or is given without weights.
    """

    kind: ClassVar[str]
    backbone_prefix: ClassVar[str]
    required_images: ClassVar[str]
    min_classes: ClassVar[int] = 2
    default_backbone: ClassVar[ViTConfig] = ViTConfig()
    network: nn.Module | None

    def __init__(
        self,
        weights: str | None,
        *,
        backbone: ViTConfig | None,
        optim: OptimConfig,
        drop_path: float,
        seed: int,
        trained_blocks: int | None = None,
    ) -> None:
        loaded = load_weights(weights) if weights is not None else None
        shape = backbone or (config_of(loaded) if loaded else self.default_backbone)
        config = replace(shape, drop_path=drop_path).resolved()
        if loaded is not None and config.positions == "sincos" and config_of(loaded).positions == "learned":
            log.warning("%s has learned positions, so the backbone gets them too instead of positions=sincos.", weights)
            config = replace(config, positions="learned")
        _check_trained_blocks(trained_blocks, config, weights)
        super().__init__(optim, seed, config.in_chans)
        if loaded is not None:
            self.take_statistics(loaded)
        self._trained_blocks = trained_blocks
        self._config, self._weights = config, loaded
        self.class_names: list[str] | None = None
        self.network = None

    @property
    @abstractmethod
    def num_classes(self) -> int:
        """Number of classes of the network."""

    @abstractmethod
    def make_network(self, config: ViTConfig, num_classes: int) -> nn.Module:
        """The network around a new backbone."""

    def after_building(self, num_classes: int) -> None:
        """Makes everything else that depends on the classes, such as metrics."""

    def exported_settings(self) -> dict[str, Any]:
        """Settings of the network in an exported file, as JSON values; the class names are stored separately."""
        return {}

    def restore_settings(self, settings: dict[str, Any]) -> None:
        """Restores :meth:`exported_settings` before the network is built from a file."""

    def setup(self, stage: str) -> None:
        """Builds the network for the datamodule's classes, channels and image size, or checks that an existing one fits them.

        Raises:
            UserError: The number of classes is unknown; or classes, channels or image size differ from those of the network.
        """
        channels = self.data.channels
        if channels is not None and self.network is None:
            self._config = replace(self._config, in_chans=channels)
            self.in_chans = channels
        super().setup(stage)
        num_classes = self.data.num_classes
        if self.network is None:
            if num_classes is None:
                raise UserError(f"The number of classes is unknown: use a datamodule of {self.required_images}.")
            self.match_image_size()
            self.build(num_classes)
        if num_classes and num_classes != self.num_classes:
            raise UserError(
                f"The network has {self.num_classes} classes, but the images have {num_classes}: use images of the same "
                "classes, or train a new network."
            )
        self.check_images()
        self._set_class_names(list(self.data.class_names))
        if stage == "fit" and self._trained_blocks is not None:
            sizes = [(weight.numel(), weight.requires_grad) for weight in self.parameters()]
            trained, total = sum(size for size, is_trained in sizes if is_trained), sum(size for size, _ in sizes)
            self.print(
                f"Training {self._trained_blocks} of {len(self.vit.blocks)} blocks and what follows them: {trained:,} of "
                f"{total:,} weights; the rest is frozen."
            )

    def match_image_size(self) -> None:
        """Gives the backbone the image size of the datamodule, before the network is built."""
        self._config = replace(self._config, image_size=self.data.image_size or self._config.image_size)

    def check_images(self) -> None:
        """Checks that the network can take the datamodule's images.

        Raises:
            UserError: It cannot.
        """
        size, expected = self.data.image_size, self.vit.config.image_size
        if size is not None and size != expected:
            raise UserError(
                f"The datamodule gives images of {size} px, but the network takes {expected} px: set both to the same image_size."
            )

    def _set_class_names(self, names: list[str]) -> None:
        if self.class_names is None:
            self.class_names = names or [str(number) for number in range(self.num_classes)]
        elif names and not self.accepts_classes(names):
            raise UserError(
                f"The network has the classes {', '.join(self.class_names)}, but the images have {', '.join(names)}: "
                "use images of the same classes, or without labels."
            )

    def accepts_classes(self, names: list[str]) -> bool:
        """Whether the network can be evaluated on images with classes of these names."""
        return names == self.class_names

    def build(self, num_classes: int) -> None:
        """Makes the network for ``num_classes`` classes and loads the weights; :meth:`setup` calls it if nothing did before.

        Raises:
            UserError: There are too few classes, or the weights do not fit the backbone.
        """
        if num_classes < self.min_classes:
            raise UserError(
                f"A {self.kind} needs at least {'one class' if self.min_classes == 1 else 'two classes'}, but the training "
                f"images have {num_classes}: use {self.required_images}."
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self.seed, "initial weights"))
            self.network = self.make_network(self._config, num_classes)
        if self._weights is not None:
            load_into(self.vit, self._weights)
            self.report_positions(self._weights)
        self._weights = None
        if self._trained_blocks is not None:
            self.vit.freeze_below(self._trained_blocks)
        self.after_building(num_classes)

    def report_positions(self, weights: Weights) -> None:
        """Logs whether learned positions were interpolated."""
        report_positions(self.vit, weights)

    def exported(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What an exported file holds in addition to the backbone: the other tensors, and what is needed to predict with them."""
        assert self.network is not None, "the network is built in setup()"
        tensors = {
            f"{self.kind}.{name}": value
            for name, value in self.network.state_dict().items()
            if not name.startswith(self.backbone_prefix)
        }
        names = self.class_names or [str(number) for number in range(self.num_classes)]
        settings = self.exported_settings()
        return tensors, {"class_names": names, **({self.kind: settings} if settings else {})}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Stores what the network is for, in addition to what the base class stores."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[NETWORK] = {"class_names": self.class_names, "settings": self.exported_settings()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Builds the network of the checkpoint if there is none yet, as in ``load_from_checkpoint``.

        Raises:
            UserError: The checkpoint, of an earlier version, does not say what its network is for; or as the base class.
        """
        super().on_load_checkpoint(checkpoint)
        if self.network is not None:
            return
        about = checkpoint.get(NETWORK)
        if about is None:
            raise UserError(
                f"The checkpoint does not record the classes of its network: give num_classes and backbone, or a "
                f"{self.kind}.safetensors with keep_head=True."
            )
        shape = config_of(Weights({}, checkpoint[FORMAT]))
        self._config, self._weights = replace(shape, drop_path=self._config.drop_path), None
        self.in_chans = shape.in_chans
        self.set_statistics(*(checkpoint[FORMAT][name] for name in ("pixel_mean", "pixel_std")))
        self.restore_settings(about["settings"])
        self.class_names = list(about["class_names"])
        self.build(len(self.class_names))

    def holds_head(self, weights: Weights) -> bool:
        """Whether a file holds the head as well as the backbone."""
        return self.kind in weights.info

    def restore(self) -> None:
        """Builds the whole network from its file, including the head.

        Raises:
            UserError: There are no weights, or they are those of a backbone or of another kind of network.
        """
        loaded, self._weights = self._weights, None
        if loaded is None or not self.holds_head(loaded):
            given = "weights is not set" if loaded is None else f"{loaded.source} is not one"
            raise UserError(
                f"keep_head needs a trained {self.kind}, but {given}: set weights to a {self.kind}.safetensors."
            )
        self.restore_settings(loaded.info.get(self.kind, {}))
        self.class_names = list(loaded.info["class_names"])
        self.crop_ratio = loaded.info.get("crop_ratio")
        self.build(len(self.class_names))
        assert self.network is not None
        head_prefix = f"{self.kind}."
        self.network.load_state_dict(
            {
                name.removeprefix(head_prefix)
                if name.startswith(head_prefix)
                else f"{self.backbone_prefix}{name}": value
                for name, value in loaded.state.items()
            }
        )


def _check_trained_blocks(trained_blocks: int | None, config: ViTConfig, weights: str | None) -> None:
    """Checks a number of blocks to train.

    Raises:
        UserError: It is not a number of the backbone's blocks, or there are no weights to keep.
    """
    if trained_blocks is None:
        return
    if not 0 <= trained_blocks <= (config.depth or 0):
        raise UserError(
            f"trained_blocks is {trained_blocks}; it must be from 0 (the backbone is frozen) to the {config.depth} blocks of the "
            "backbone. Leave it out to train everything."
        )
    if weights is None:
        raise UserError(
            f"trained_blocks={trained_blocks} would freeze a part of the backbone at its random initial weights: give "
            "pre-trained weights (--weights FILE), or leave it out."
        )
