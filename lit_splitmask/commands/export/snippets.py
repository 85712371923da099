"""The code in a model card that reads an image and runs the network, without this project."""

import json
from pathlib import Path

from lit_splitmask.commands.export.formats import OUTPUTS
from lit_splitmask.commands.export.trained import Trained

_LIBRARY = {"timm": "timm", "onnx": "onnxruntime", "torch-export": "torch"}

_LOAD = {
    "timm": 'model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()',
    "onnx": 'model = onnxruntime.InferenceSession(f"{folder}/model.onnx")',
    "torch-export": 'model = torch.export.load(f"{folder}/model.pt2").module()',
}

_DEEP = 'image.mode in ("I", "F") or image.mode.startswith("I;")'

_SCALE = f"""\
if {_DEEP}:  # more than 8 bits: low becomes black, high white
    low, high = {{low!r}}, {{high!r}}
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), nan=low, posinf=high, neginf=low)
    image = Image.fromarray(((values - low) / (high - low) * 255).clip(0, 255).round().astype(np.uint8))
"""

_REFUSE = f"""\
if {_DEEP}:
    raise ValueError("The network has no window for images of more than 8 bits: scale their values to 0–255 first.")
"""

_CROP = """\
side = min(image.size) * {ratio}
left, top = (image.width - side) / 2, (image.height - side) / 2
crop = image.resize(({size}, {size}), Image.Resampling.BICUBIC, (left, top, left + side, top + side)){grey}
pixels = np.array(crop).reshape({size}, {size}, {channels}).transpose(2, 0, 1)[None]  # (1, {channels}, {size}, {size}) uint8
"""

_RUN = {
    "timm": """\
mean, std = (np.array(model.pretrained_cfg[name], dtype=np.float32).reshape(-1, 1, 1) for name in ("mean", "std"))
with torch.inference_mode():
    {output} = model(torch.from_numpy((pixels / np.float32(255) - mean) / std)).numpy()
""",
    "onnx": """\
({output},) = model.run(None, {{"images": {pixels}}})
""",
    "torch-export": """\
with torch.inference_mode():
    {output} = model(torch.from_numpy({pixels})).numpy()
""",
}

_WINDOWS = """\
pixels = np.array(scaled{grey}).reshape(scaled.height, scaled.width, {channels})
height, width, window, stride = *pixels.shape[:2], {size}, {stride}
padded = np.full((max(height, window), max(width, window), {channels}), {fill}, dtype=np.uint8)
padded[:height, :width] = pixels


def starts(length):
    return [min(number * stride, length - window) for number in range(-(-(length - window) // stride) + 1)]


total = np.zeros(({classes}, *padded.shape[:2]), dtype=np.float32)
count = np.zeros(padded.shape[:2], dtype=np.float32)
for top in starts(padded.shape[0]):
    for left in starts(padded.shape[1]):
        rows, columns = slice(top, top + window), slice(left, left + window)
        part = padded[rows, columns].transpose(2, 0, 1)[None].copy()
{run}        total[:, rows, columns] += logits[0]
        count[rows, columns] += 1
logits = (total / count)[:, :height, :width]
if scaled.size != image.size:
    logits = np.stack([np.array(Image.fromarray(one).resize(image.size, Image.Resampling.BILINEAR)) for one in logits])
classes = logits.argmax(axis=0)  # (H, W), numbers of the classes
"""


def snippet(trained: Trained, format_name: str, folder: Path) -> str:
    """Python code that loads the folder and computes the network's output for the image ``photo.jpg``."""
    has_names, of_timm = bool(trained.class_names), format_name == "timm"
    libraries = ["import numpy as np", f"import {_LIBRARY[format_name]}"]
    libraries += ["import torch"] if of_timm else []
    lines = ["import json", "from pathlib import Path", ""] if has_names and not of_timm else []
    lines += [*libraries, "from PIL import Image, ImageOps", ""]
    lines += [f"folder = {json.dumps(str(folder))}", _LOAD[format_name]]
    if has_names:
        of_folder = 'json.loads(Path(folder, "config.json").read_text())["class_names"]'
        lines.append("names = " + ('model.pretrained_cfg["label_names"]' if of_timm else of_folder))
    lines += ["", 'image = ImageOps.exif_transpose(Image.open("photo.jpg"))']
    deep = _REFUSE if trained.window is None else _SCALE.format(low=trained.window[0], high=trained.window[1])
    body = _segment(trained, format_name) if trained.kind == "segmenter" else _classify(trained, format_name)
    return "\n".join(lines) + "\n" + deep + 'image = image.convert("RGB")\n' + body


def _classify(trained: Trained, format_name: str) -> str:
    channels, size, _ = trained.input_size
    output = OUTPUTS.get(trained.kind, "logits")
    grey = '.convert("L")' if channels == 1 else ""
    code = _CROP.format(ratio=trained.crop_ratio, size=size, grey=grey, channels=channels)
    code += _RUN[format_name].format(output=output, pixels="pixels")
    if trained.class_names:
        code += "print(names[logits[0].argmax()])\n"
    if trained.target is not None:
        code += f"print({json.dumps(trained.target)}, {output}[0, 0])\n"
    return code


def _segment(trained: Trained, format_name: str) -> str:
    channels, size, _ = trained.input_size
    side = trained.short_side
    scaled = "scaled = image\n"
    if side is not None:
        scaled = (
            f"scale = min({side} / min(image.size), 4 * {side} / max(image.size))\n"
            "scaled = image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.BICUBIC)\n"
        )
    run = _RUN[format_name].format(output="logits", pixels="part")
    return scaled + _WINDOWS.format(
        channels=channels,
        size=size,
        stride=max(1, size * 2 // 3),
        grey='.convert("L")' if channels == 1 else "",
        fill=[round(255 * mean) for mean in trained.mean],
        classes=trained.num_classes,
        run="".join(f"        {line}\n" for line in run.splitlines()),
    )
