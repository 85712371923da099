"""``lit-splitmask export``: writes a backbone or classifier for use without this project, and checks what it wrote."""

import json
import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from lit_splitmask.checkpoints import FORMAT, Weights, load_weights, write_safetensors
from lit_splitmask.commands.parser import OptionParser
from lit_splitmask.commands.request import Request
from lit_splitmask.errors import UserError
from lit_splitmask.files import cannot_write, partial_name, write_atomically, write_json

FORMATS = ("timm", "onnx", "torch-export")
CROP = 0.875
TOLERANCE = 1e-4


def export(request: Request) -> int:
    """Writes a folder with the network, its preprocessing and a model card, whole or not at all.

    Raises:
        UserError: The weights cannot be exported, the options are wrong, or the folder exists or cannot be written.
    """
    parser = OptionParser(prog="lit-splitmask export", allow_abbrev=False)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument("--out")
    parser.add_argument("--crop_ratio", type=float)
    given = parser.parse_args(request.settings())
    out = Path(given.out or f"{Path(given.weights).with_suffix('')}-{given.format}")
    if os.path.lexists(out):
        raise UserError(f"{out} already exists: give another folder with --out DIR.")
    if given.crop_ratio is not None and not 0 < given.crop_ratio <= 1:
        raise UserError(f"--crop_ratio {given.crop_ratio} is impossible: give a share above 0, of at most 1.")
    lacking = [
        name for name in ("onnx", "onnxruntime", "onnxscript") if given.format == "onnx" and find_spec(name) is None
    ]
    if lacking:
        raise UserError(
            f"ONNX files need {' and '.join(lacking)}: install them with pip install 'lit-splitmask[export]'."
        )
    weights = load_weights(given.weights)
    network = _network(weights)
    config = timm_config(weights, _crop_ratio(weights, given.crop_ratio))
    partial = partial_name(out)
    try:
        partial.mkdir(parents=True)
        difference = _WRITERS[given.format](partial, network, weights, config)
        write_atomically(partial / "README.md", _card(config, weights, given.format).encode())
        if not difference <= TOLERANCE:  # NaN too
            raise UserError(
                f"The exported network differs from the original by {difference:.2g}, so nothing was written."
            )
        os.rename(partial, out)
    except OSError as error:
        raise cannot_write(out, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(f"Wrote {out}: its outputs differ from the original's by at most {difference:.2g}.")
    if given.format == "timm":
        print(f'  timm.create_model("local-dir:{out}", pretrained=True)')
    return 0


def _crop_ratio(weights: Weights, given: float | None) -> float:
    """The share of the short side that evaluation crops: the given one, the file's, or finetune's default, which is said."""
    if given is not None:
        return given
    recorded = weights.info.get("crop_ratio")
    if recorded is not None:
        return float(recorded)
    print(f"note: {weights.source} does not record its crop ratio; {CROP} is assumed. Give another with --crop_ratio.")
    return CROP


def _network(weights: Weights) -> VisionTransformer:
    """The backbone or classifier that a file holds, in evaluation mode."""
    info = weights.info
    other = next(
        (kind for kind in ("segmenter", "detector") if any(k.startswith(f"{kind}.") for k in weights.state)), None
    )
    if other is not None:
        raise UserError(f"{weights.source} holds a {other}, which cannot be exported: give a backbone or a classifier.")
    if "timm" not in info or "pixel_mean" not in info or "pixel_std" not in info:
        raise UserError(
            f"{weights.source} does not say its shape, pixel mean and std, which an export must state: give "
            "backbone.safetensors or classifier.safetensors of a run."
        )
    network = timm.create_model(**info["timm"])
    assert isinstance(network, VisionTransformer), "files describe a Vision Transformer"
    try:
        network.load_state_dict(weights.state)
    except RuntimeError as error:
        raise UserError(
            f"{weights.source} does not fit the network that it describes ({error}): give an unmodified file."
        ) from None
    return network.eval()


def timm_config(weights: Weights, crop_ratio: float) -> dict[str, Any]:
    """The ``config.json`` that timm reads: arguments of the network, and the true preprocessing."""
    args = dict(weights.info["timm"])
    name, classes, size = args.pop("model_name"), args.pop("num_classes"), args["img_size"]
    config = {
        "architecture": name,
        "num_classes": classes,
        "num_features": args["embed_dim"],
        "model_args": args,
        "pretrained_cfg": {
            "num_classes": classes,
            "input_size": [args["in_chans"], size, size],
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "crop_pct": crop_ratio,
            "crop_mode": "center",
            "mean": weights.info["pixel_mean"],
            "std": weights.info["pixel_std"],
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }
    if classes and weights.info.get("class_names"):
        config["label_names"] = weights.info["class_names"]
    return config


def _example(network: VisionTransformer, config: dict[str, Any], images: int) -> torch.Tensor:
    """Normal values of the network's input size, (images, C, H, W) float32."""
    return torch.randn(images, *config["pretrained_cfg"]["input_size"], generator=torch.Generator().manual_seed(0))


def _write_timm(folder: Path, network: VisionTransformer, weights: Weights, config: dict[str, Any]) -> float:
    """Writes timm's folder; the largest difference of an output after loading it as timm does."""
    write_safetensors(folder / "model.safetensors", weights.state, {FORMAT: json.dumps(weights.info), "format": "pt"})
    write_json(folder / "config.json", config)
    images = _example(network, config, 2)
    with torch.inference_mode():
        loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        return float((loaded(images) - network(images)).abs().max())


def _write_program(folder: Path, network: VisionTransformer, weights: Weights, config: dict[str, Any]) -> float:
    """Writes a program of torch.export for any number of images; the largest difference of an output for 1 and 3 images."""
    batch = torch.export.Dim("batch", min=1)
    with torch.no_grad():
        program = torch.export.export(network, (_example(network, config, 2),), dynamic_shapes=({0: batch},))
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "model.pt2"
        torch.export.save(program, path)
        write_atomically(folder / "model.pt2", path.read_bytes())
    write_json(folder / "config.json", config)
    loaded = torch.export.load(folder / "model.pt2").module()
    with torch.inference_mode():
        both = [_example(network, config, count) for count in (1, 3)]
        return max(float((loaded(images) - network(images)).abs().max()) for images in both)


def _write_onnx(folder: Path, network: VisionTransformer, weights: Weights, config: dict[str, Any]) -> float:
    """Writes an ONNX file for any number of images; the largest difference of onnxruntime's output for 1 and 3 images."""
    import onnxruntime

    path = folder / "model.onnx"
    torch.onnx.export(
        network,
        (_example(network, config, 2),),
        str(path),
        dynamo=True,
        input_names=["images"],
        output_names=["output"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        external_data=False,
        verbose=False,
    )
    write_json(folder / "config.json", config)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    differences = []
    for count in (1, 3):
        images = _example(network, config, count)
        with torch.inference_mode():
            expected = network(images)
        (output,) = session.run(None, {"images": images.numpy()})
        differences.append(float((torch.from_numpy(output) - expected).abs().max()))
    return max(differences)


_WRITERS = {"timm": _write_timm, "onnx": _write_onnx, "torch-export": _write_program}


def _card(config: dict[str, Any], weights: Weights, kind: str) -> str:
    """The model card: what the network is, and the exact preprocessing as code."""
    cfg = config["pretrained_cfg"]
    size, ratio = cfg["input_size"][1], cfg["crop_pct"]
    load = {
        "timm": 'import timm\n\nmodel = timm.create_model("local-dir:FOLDER", pretrained=True).eval()',
        "onnx": 'import onnxruntime\n\nmodel = onnxruntime.InferenceSession("FOLDER/model.onnx")  # run(None, {"images": …})',
        "torch-export": 'import torch\n\nmodel = torch.export.load("FOLDER/model.pt2").module()',
    }[kind]
    library = "library_name: timm\n" if kind == "timm" else ""
    names = "".join(f"- {n}\n" for n in config.get("label_names", []))
    return f"""---
{library}tags: [image-{"classification" if config["num_classes"] else "feature-extraction"}]
---

# {config["architecture"]}

{"Classes, in the order of the outputs:" if names else "A backbone: the output is a feature vector."}

{names}
```python
{load}
```

Input, exactly as in evaluation (`image` is an RGB image of Pillow, upright):

```python
import numpy as np
import torch
from PIL import Image

width, height = image.size
side = min(width, height) * {ratio}
left, top = (width - side) / 2, (height - side) / 2
crop = image.resize(({size}, {size}), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
pixels = torch.from_numpy(np.array(crop)).permute(2, 0, 1) / 255
mean, std = torch.tensor({cfg["mean"]}), torch.tensor({cfg["std"]})
batch = ((pixels - mean[:, None, None]) / std[:, None, None])[None]
```
"""
