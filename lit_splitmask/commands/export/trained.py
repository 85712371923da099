"""The network in a file of weights, as it is evaluated, and what its input is."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from lit_splitmask.checkpoints import Weights, config_of, load_weights
from lit_splitmask.errors import UserError
from lit_splitmask.images.window import Window, parse_window
from lit_splitmask.models.vit import ViT, ViTConfig
from lit_splitmask.modules import Regress, Segment
from lit_splitmask.shell import say
from lit_splitmask.views import network_view

USUAL_CROP_RATIO = 0.875
"""The default of the datamodules."""

_MOST_PIXELS = 10**6
"""Longest side of an input, in pixels."""


@dataclass(frozen=True)
class Trained:
    """A trained network in evaluation mode. B images, C channels, S side of the input in pixels, D width, K classes.

    Attributes:
        kind: What it is.
        network: Maps normalised images (B, C, S, S) float32 to features (B, D), to logits (B, K), to a number in its unit (B, 1),
            or to logits of all pixels (B, K, S, S).
        config: Shape of the ViT.
        weights: The file's content.
        crop_ratio: Share of the short side that the centre crop of evaluation covers; None for a segmenter, which takes windows.
        short_side: Short side to which a segmenter's images are scaled, in pixels; None for their own size.
        scale: Of the outputs: a difference that is small beside it does not matter.
    """

    kind: Literal["backbone", "classifier", "regressor", "segmenter"]
    network: nn.Module
    config: ViTConfig
    weights: Weights
    crop_ratio: float | None = None
    short_side: int | None = None
    scale: float = 1.0

    @property
    def mean(self) -> list[float]:
        """Mean of the pixels in [0, 1] per channel."""
        return _shortest(self.weights.info["pixel_mean"])

    @property
    def std(self) -> list[float]:
        """Standard deviation of the pixels in [0, 1] per channel."""
        return _shortest(self.weights.info["pixel_std"])

    @property
    def window(self) -> Window | None:
        """The values of images of more than 8 bits that are black and white; None if the network was trained without a window."""
        return parse_window(self.weights.info.get("pixel_window"))

    @property
    def class_names(self) -> list[str]:
        """Names of the classes; empty without classes, and if the file has none."""
        return [] if self.kind in ("backbone", "regressor") else list(self.weights.info.get("class_names", []))

    @property
    def target(self) -> str | None:
        """Name of the number that a regressor predicts; None for other networks."""
        return self.weights.info["class_names"][0] if self.kind == "regressor" else None

    @property
    def num_classes(self) -> int:
        """K; 1 for a regressor, 0 for a backbone."""
        return int(getattr(self.network, "num_classes", 0))

    @property
    def input_size(self) -> tuple[int, int, int]:
        """C, S and S."""
        return self.config.in_chans, self.config.image_size, self.config.image_size

    def from_pixels(self) -> nn.Module:
        """The network with its normalisation: (B, C, S, S) uint8 to the same result."""
        return _FromPixels(self.network, Tensor(self.mean), Tensor(self.std)).eval()


class _FromPixels(nn.Module):
    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, images: Tensor) -> Any:
        return self.network(network_view(images, self.mean, self.std))


def read_trained(path: str, crop_ratio: float | None = None) -> Trained:
    """Reads the network that a file of weights holds.

    Args:
        path: The file.
        crop_ratio: Share of the short side that the centre crop covers; None for what the file says, or the usual one.

    Raises:
        UserError: The file cannot be read, holds a detector, does not say what its network's input is, or does not fit the
            network that it describes; or a segmenter is given a crop.
    """
    weights = load_weights(path)
    info = weights.info
    if "detector" in info:
        raise UserError(
            f"{path} holds a detector, which cannot be exported: the number of boxes depends on the image, and torch.export "
            "cannot trace torchvision's non-maximum suppression then. Use `lit-splitmask predict`, or Detect in Python."
        )
    if not {"timm", "pixel_mean", "pixel_std"} <= info.keys():
        raise UserError(
            f"{path} does not record its shape, pixel mean and std, which an export needs: give the backbone, classifier, "
            "regressor or segmenter.safetensors of a run."
        )
    config = config_of(weights).resolved()
    try:
        if "segmenter" in info:
            return _segmenter(weights, config, crop_ratio)
        num_classes = len(weights.state.get("head.weight", ()))
        vit = ViT(config, num_classes)
        vit.load_state_dict(weights.state)
    except (RuntimeError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} does not fit the network that it describes ({error}): give an unmodified file."
        ) from None
    ratio = _crop_ratio(crop_ratio, weights)
    if "regressor" in info:
        return _regressor(weights, config, ratio)
    names = info.get("class_names", [])
    if num_classes and names and len(names) != num_classes:
        raise UserError(f"{path} has {num_classes} classes, but names {len(names)}: give an unmodified file.")
    kind: Literal["classifier", "backbone"] = "classifier" if num_classes else "backbone"
    return Trained(kind, vit.eval(), config, weights, crop_ratio=ratio)


def _crop_ratio(given: float | None, weights: Weights) -> float:
    """The given crop, otherwise that of the file, otherwise the usual one, which is reported."""
    ratio: float | None = given or weights.info.get("crop_ratio")
    if ratio is None:
        say(
            f"note: {weights.source} does not record its crop ratio; {USUAL_CROP_RATIO} is assumed. Give another with "
            "--crop_ratio."
        )
    return ratio or USUAL_CROP_RATIO


def _regressor(weights: Weights, config: ViTConfig, crop_ratio: float) -> Trained:
    """A regressor whose head gives numbers in their unit, as its new file then says."""
    network = Regress(weights.source, keep_head=True).in_units().eval()
    scale = float(weights.info["regressor"]["std"])
    weights = replace(weights, info={**weights.info, "regressor": {"mean": 0.0, "std": 1.0}})
    return Trained("regressor", network, config, weights, crop_ratio=crop_ratio, scale=scale)


def _segmenter(weights: Weights, config: ViTConfig, crop_ratio: float | None) -> Trained:
    if crop_ratio is not None:
        raise UserError("A segmenter reads whole images in windows and does not crop: leave out --crop_ratio.")
    module = Segment(weights.source, keep_head=True)
    side = module.short_side
    if side is not None and not (type(side) is int and 0 < side < _MOST_PIXELS):
        raise TypeError(f"short_side is {side!r}, but must be a number of pixels")
    network = module.segmenter.eval()
    del network.auxiliary  # for training only
    return Trained("segmenter", network, config, weights, short_side=side)


def _shortest(values: list[float]) -> list[float]:
    """The numbers with the fewest digits that are the same in float32: 0.485 instead of 0.48500001430511475."""
    return [float(str(np.float32(value))) for value in values]
