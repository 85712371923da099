"""The files of each format, and what another library computes from them."""

import json
import logging
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

from lit_splitmask.checkpoints import FORMAT, write_safetensors
from lit_splitmask.commands.export.trained import Trained
from lit_splitmask.errors import UserError
from lit_splitmask.files import write_json
from lit_splitmask.views import INTERPOLATION, network_view

ONNX_LIBRARIES = ("onnx", "onnxruntime", "onnxscript")

_MOST_ONNX_BYTES = 2**31 - 2**24
"""Of the weights in one ONNX file; the rest is for the graph."""

OUTPUTS = {"backbone": "features", "regressor": "number"}
"""What an output is called, by the kind of network; logits for the others."""

_SEED = 0

Run = Callable[[Tensor], Tensor]
"""What a format's own library computes from pixels: (B, C, S, S) uint8 to the network's output."""


def write_timm(folder: Path, trained: Trained) -> Run:
    """Writes the folder that ``timm.create_model("local-dir:…", pretrained=True)`` loads, with the preprocessing."""
    about = {FORMAT: json.dumps(trained.weights.info), "format": "pt"}
    write_safetensors(folder / "model.safetensors", trained.network.state_dict(), about)
    write_json(folder / "config.json", timm_config(trained))
    model: Any = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    mean, std = (torch.tensor(model.pretrained_cfg[name]) for name in ("mean", "std"))
    return lambda images: model(network_view(images, mean, std))


def timm_config(trained: Trained) -> dict[str, Any]:
    """The ``config.json`` that timm and transformers read: arguments of the network, preprocessing and class names."""
    args = trained.config.timm_args(trained.num_classes)
    name, num_classes = args.pop("model_name"), args.pop("num_classes")
    assert trained.crop_ratio is not None, "timm has no segmenters"
    config = {
        "architecture": name,
        "num_classes": num_classes,
        "num_features": trained.config.embed_dim,
        "model_args": args,
        "pretrained_cfg": {
            "num_classes": num_classes,
            "input_size": list(trained.input_size),
            "fixed_input_size": True,
            "interpolation": INTERPOLATION,
            "crop_pct": timm_crop(trained.config.image_size, trained.crop_ratio),
            "crop_mode": "center",
            "mean": trained.mean,
            "std": trained.std,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }
    config |= {} if trained.window is None else {"pixel_window": trained.window}
    return {**config, "label_names": trained.class_names} if trained.class_names else config


def timm_crop(size: int, ratio: float) -> float:
    """timm's ``crop_pct`` for a crop: the ratio itself, unless another one comes closer to it.

    timm resizes the short side to ⌊size / crop_pct⌋ pixels, and cuts out ``size`` of them. An odd difference would move
    the crop by half a pixel, so the nearest even one is best.

    Args:
        size: Side of the crop in pixels.
        ratio: Share of the short side that it covers.
    """
    best = size + 2 * round((size / ratio - size) / 2)
    shares = (ratio, size / best, math.nextafter(size / best, 0))  # the last one is for sizes that float rounds down
    return next(share for share in shares if math.floor(size / share) == best)


def write_torch_export(folder: Path, trained: Trained) -> Run:
    """Writes a program that ``torch.export.load`` reads, for any number of images."""
    with torch.no_grad():
        program = torch.export.export(trained.from_pixels(), **_traced_with(trained))
    torch.export.save(program, folder / "model.pt2")
    write_json(folder / "config.json", plain_config(trained))
    loaded: Run = torch.export.load(folder / "model.pt2").module()
    return loaded


def write_onnx(folder: Path, trained: Trained) -> Run:
    """Writes an ONNX file for any number of images, with class names and preprocessing in its metadata.

    Raises:
        UserError: The weights are too large for one file.
    """
    import onnxruntime

    num_bytes = sum(values.nbytes for values in trained.network.state_dict().values())
    if num_bytes > _MOST_ONNX_BYTES:
        raise UserError(
            f"The weights take {num_bytes / 2**30:.1f} GiB, and an ONNX file holds 2 GiB at most: give --format torch-export."
        )
    output = OUTPUTS.get(trained.kind, "logits")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            trained.from_pixels(),
            **_traced_with(trained),
            dynamo=True,
            input_names=["images"],
            output_names=[output],
            verbose=False,
        )
    assert program is not None, "dynamo=True"
    config = plain_config(trained)
    program.model.metadata_props.update({name: json.dumps(value) for name, value in config.items()})
    program.save(folder / "model.onnx", external_data=False)
    write_json(folder / "config.json", config)
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def plain_config(trained: Trained) -> dict[str, Any]:
    """What a network is and what its input is, for formats without a convention of their own."""
    area = {"crop_ratio": trained.crop_ratio, "interpolation": INTERPOLATION}
    if trained.kind == "segmenter":
        area = {"short_side": trained.short_side, "map_values": trained.weights.info["segmenter"].get("values")}
    return {
        "kind": trained.kind,
        "input": "uint8 pixels; mean and std are applied inside",
        "input_size": list(trained.input_size),
        **area,
        "mean": trained.mean,
        "std": trained.std,
        "pixel_window": trained.window,
        "class_names": trained.class_names,
        **({} if trained.target is None else {"target": trained.target}),
    }


def _traced_with(trained: Trained) -> dict[str, Any]:
    """The arguments of torch.export for any number of images."""
    return {"args": (random_pixels(trained, 2),), "dynamic_shapes": ({0: torch.export.Dim("batch", min=1)},)}


def random_pixels(trained: Trained, images: int) -> Tensor:
    """Noise of the network's input size, (images, C, S, S) uint8."""
    generator = torch.Generator().manual_seed(_SEED)
    return torch.randint(256, (images, *trained.input_size), dtype=torch.uint8, generator=generator)


def difference(trained: Trained, run: Run) -> float:
    """The largest difference of an output for one and for three images, as a share of the largest output or of their scale."""
    original, found = trained.from_pixels(), []
    with torch.inference_mode():
        for images in (random_pixels(trained, 1), random_pixels(trained, 3)):
            expected = original(images)
            found.append(float((run(images) - expected).abs().max() / expected.abs().max().clamp(min=trained.scale)))
    return max(found) if all(map(math.isfinite, found)) else math.nan


WRITERS: dict[str, Callable[[Path, Trained], Run]] = {
    "timm": write_timm,
    "onnx": write_onnx,
    "torch-export": write_torch_export,
}
"""Formats by name."""
