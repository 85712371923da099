"""The model card: what the network is, its numbers, and its preprocessing as code."""

import re
from pathlib import Path

from lit_splitmask import __version__
from lit_splitmask.commands.export.run_numbers import run_numbers
from lit_splitmask.commands.export.snippets import snippet
from lit_splitmask.commands.export.trained import Trained
from lit_splitmask.images.window import show
from lit_splitmask.views import INTERPOLATION

_PIPELINES = {
    "backbone": "image-feature-extraction",
    "classifier": "image-classification",
    "regressor": "other",
    "segmenter": "image-segmentation",
}

_OUTPUTS = {
    "backbone": "a feature vector per image, the mean of its patches",
    "classifier": "logits of the classes",
    "regressor": "a number per image, in the unit of the training list",
    "segmenter": "logits of the classes for every pixel of a window",
}

_BY_TIMM = """\
`timm.data.create_transform(**timm.data.resolve_data_config({}, model=model))`, and the image processor of transformers' \
`AutoImageProcessor`, give nearly the same: they resize first, and cut out whole pixels."""

_FILES = {"timm": "model.safetensors", "onnx": "model.onnx", "torch-export": "model.pt2"}


def model_card(trained: Trained, format_name: str, folder: Path) -> str:
    """The text of ``README.md`` in an exported folder.

    Args:
        trained: The network.
        format_name: One of the formats.
        folder: The folder, as its user calls it.

    Raises:
        UserError: The report of the weights' run cannot be read.
    """
    config = trained.config
    library = {"timm": "timm", "onnx": "onnx"}.get(format_name, "pytorch")
    parts = [
        f"---\nlibrary_name: {library}\npipeline_tag: {_PIPELINES[trained.kind]}\ntags: [lit_splitmask]\n---",
        f"# {_plain(folder.name)}",
        f"A {trained.kind}: a Vision Transformer of width {config.embed_dim} with {config.depth} blocks and patches of "
        f"{config.patch_size} px, trained with lit_splitmask {__version__}. `{_FILES[format_name]}` gives "
        f"{_OUTPUTS[trained.kind]}.",
        f"## Use\n\n```python\n{snippet(trained, format_name, folder)}```",
        _input(trained, format_name),
    ]
    numbers = run_numbers(trained.weights)
    if numbers:
        rows = "".join(f"| {_plain(name)} | {value:.4g} |\n" for name, value in numbers)
        parts.append(f"## Numbers of its run\n\n| score | value |\n|---|---|\n{rows}".rstrip())
    if trained.target is not None:
        parts.append(f"## Number\n\n{_plain(trained.target)}")
    elif trained.num_classes:
        names = trained.class_names or [str(number) for number in range(trained.num_classes)]
        parts.append("## Classes\n\n" + "\n".join(f"{number}. {_plain(name)}" for number, name in enumerate(names)))
    return "\n\n".join(parts) + "\n"


def _input(trained: Trained, format_name: str) -> str:
    """The preprocessing in words."""
    channels, size, _ = trained.input_size
    lines = [f"{channels} × {size} × {size}, " + ("RGB" if channels == 3 else "luminance (ITU-R 601)")]
    if trained.kind == "segmenter":
        scaled = "at their own size" if trained.short_side is None else f"with a short side of {trained.short_side} px"
        lines.append(
            f"windows of whole images {scaled}, every {max(1, size * 2 // 3)} px; the logits of overlaps are averaged"
        )
    else:
        lines.append(
            f"the centre crop that covers {trained.crop_ratio:g} of the short side, {INTERPOLATION}, antialiased"
        )
    inside = (
        "" if format_name == "timm" else "; they are applied inside, so the network takes pixels from 0 to 255 (uint8)"
    )
    lines.append(f"mean {trained.mean} and std {trained.std} of pixels in [0, 1]{inside}")
    lines.append(_depth(trained, format_name))
    text = "## Input\n\n" + "\n".join(f"- {line}" for line in lines)
    return text if format_name != "timm" else f"{text}\n\n{_BY_TIMM}"


def _depth(trained: Trained, format_name: str) -> str:
    """How images of more than 8 bits are read."""
    if trained.window is None:
        return "images of 8 bits; the network has no window for deeper ones, so scale their values to 0–255 first"
    low, high = show(trained.window).split(",")
    text = (
        f"images of more than 8 bits: their values from {low} to {high} become 0–255, and values outside are clipped, as in "
        "the code above; for DICOM, the values after rescale slope and intercept, MONOCHROME1 inverted"
    )
    return text if format_name != "timm" else f"{text}. timm and transformers do not do that"


def _plain(name: str) -> str:
    """A name as one line of Markdown without markup."""
    line = re.sub(r"([\\`*\[\]<>|#&])", r"\\\1", " ".join(name.split()))
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", line)  # within a word an underscore is no markup
