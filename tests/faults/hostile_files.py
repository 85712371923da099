"""Damaged and hostile files, made by hand: each is the writer of one file or folder, by kind and name."""

import io
import json
import os
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from coco_sets import annotation
from deep_images import dicom_dataset
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from safetensors.torch import save as to_safetensors
from torch_programs import Writes

from lit_splitmask.checkpoints import FORMAT, describe
from lit_splitmask.models import ViT, ViTConfig

RAN = "ran"
"""The file that code of a hostile file would write."""

Write = Callable[[Path], object]
SHAPE = ViTConfig(embed_dim=32, depth=1, num_heads=2, patch_size=8, image_size=32)


class Runs:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, (f"touch {RAN}",)


def saved(value: Any, **settings: Any) -> bytes:
    """What ``torch.save`` writes."""
    buffer = io.BytesIO()
    torch.save(value, buffer, **settings)
    return buffer.getvalue()


def program() -> bytes:
    """A TorchScript program as a file."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Writes(RAN)), buffer)
    return buffer.getvalue()


def backbone(**changes: Any) -> bytes:
    """A file of weights with other entries about its network: of the network's shape (``timm``), or beside it."""
    vit = ViT(SHAPE)
    info = {**describe(vit), "pixel_mean": [0.5] * 3, "pixel_std": [0.5] * 3}
    info["timm"] = {**info["timm"], **{name: value for name, value in changes.items() if name in info["timm"]}}
    info |= {name: value for name, value in changes.items() if name not in info["timm"]}
    return to_safetensors(vit.state_dict(), {FORMAT: json.dumps(info)})


def with_metadata(text: str) -> bytes:
    return to_safetensors(ViT(SHAPE).state_dict(), {FORMAT: text})


def header(text: bytes, rest: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with a header of any text."""
    return struct.pack("<Q", len(text) if length is None else length) + text + rest


def data(content: bytes | str) -> Write:
    return lambda path: path.write_bytes(content.encode() if isinstance(content, str) else content)


def later(make: Callable[[], bytes]) -> Write:
    """Makes the content when the file is written, since that takes a while."""
    return lambda path: path.write_bytes(make())


def fifo(path: Path) -> None:
    os.mkfifo(path)


def link_to(target: str) -> Write:
    return lambda path: path.symlink_to(target)


def link_to_fifo(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


def repacked(content: bytes, compression: int = zipfile.ZIP_DEFLATED, **more: bytes) -> bytes:
    """An archive with the same entries, compressed, and more."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as plain, zipfile.ZipFile(packed, "w", compression) as archive:
        for entry in plain.infolist():
            archive.writestr(entry.filename, more.pop(entry.filename, plain.read(entry.filename)))
        for name, extra in more.items():
            archive.writestr(name, extra)
    return packed.getvalue()


def bomb() -> bytes:
    """4 MB that unpack to 4 GB of weights."""
    return repacked(saved({"a": torch.zeros(4)}), **{"archive/data/0": bytes(4 * 10**8)})


def expanded() -> bytes:
    state = dict(ViT(SHAPE).state_dict())
    state["pos_embed"] = torch.zeros(1).expand(1, 10**9, 32)
    return saved(state)


def memo(number: int) -> bytes:
    """A pickle that gives one object a huge number."""
    return pickle.PROTO + b"\x02" + pickle.EMPTY_DICT + pickle.LONG_BINPUT + struct.pack("<I", number) + pickle.STOP


def tar_with_fifo() -> bytes:
    import tarfile

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("storages")
        entry.type = tarfile.FIFOTYPE
        archive.addfile(entry)
    return buffer.getvalue()


WEIGHTS: dict[str, Write] = {
    "depth -3": later(lambda: backbone(depth=-3)),
    "depth as text": later(lambda: backbone(depth="2")),
    "depth of a billion": later(lambda: backbone(depth=10**9)),
    "depth true": later(lambda: backbone(depth=True)),
    "width of a billion": later(lambda: backbone(embed_dim=10**9)),
    "width as a list": later(lambda: backbone(embed_dim=[32])),
    "image of a million": later(lambda: backbone(img_size=10**6)),
    "patch of zero": later(lambda: backbone(patch_size=0)),
    "patch of a half": later(lambda: backbone(patch_size=8.5)),
    "no heads": later(lambda: backbone(num_heads=0)),
    "negative heads": later(lambda: backbone(num_heads=-2)),
    "heads of nothing": later(lambda: backbone(num_heads=None)),
    "channels of a billion": later(lambda: backbone(in_chans=10**9)),
    "class token as text": later(lambda: backbone(class_token="yes")),
    "size of no name": later(lambda: backbone(model_name="vit")),
    "size as number": later(lambda: backbone(model_name=3)),
    "positions unknown": later(lambda: backbone(positions="x")),
    "mean as text": later(lambda: backbone(pixel_mean="x")),
    "mean of NaN": later(lambda: backbone(pixel_mean=[float("nan")] * 3)),
    "mean of one": later(lambda: backbone(pixel_mean=[0.5])),
    "std of zero": later(lambda: backbone(pixel_std=[0, 0, 0])),
    "std of lists": later(lambda: backbone(pixel_std=[[1], [1], [1]])),
    "class names as number": later(lambda: backbone(class_names=3)),
    "class names nested": later(lambda: backbone(class_names=[[1], {}])),
    "classes without a head": later(lambda: backbone(class_names=["a", "b"], classifier={})),
    "timm as a list": later(lambda: backbone(timm=[])),
    "timm as nothing": later(lambda: backbone(timm=None)),
    "metadata nested deeply": later(lambda: with_metadata("[" * 100_000)),
    "metadata a number": later(lambda: with_metadata("3")),
    "metadata no JSON": later(lambda: with_metadata("{")),
    "metadata a long number": later(lambda: with_metadata('{"timm": {"depth": ' + "9" * 5000 + "}}")),
    "header too long": data(header(b"{}", length=2**62)),
    "header nested deeply": data(header(b"[" * 10**6)),
    "header no text": data(header(b"\xff" * 64)),
    "header of nothing": data(b""),
    "tensors beyond the file": data(
        header(b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}')
    ),
    "shape overflows": data(
        header(b'{"a":{"dtype":"F32","shape":[4294967296,4294967296,2],"data_offsets":[0,4]}}', bytes(4))
    ),
    "offsets backwards": data(header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}', bytes(4))),
    "pipe": fifo,
    "link to a device": link_to("/dev/zero"),
    "cut": later(lambda: backbone()[:-100]),
}

PICKLES: dict[str, Write] = {
    "command": later(lambda: saved({"a": Runs()})),
    "command of the older format": later(lambda: saved({"a": Runs()}, _use_new_zipfile_serialization=False)),
    "plain command": later(lambda: pickle.dumps(Runs())),
    "program": later(program),
    "program with an end mark": later(lambda: program() + b"PK\x05\x06"),
    "program with an empty archive": later(lambda: program() + b"PK\x05\x06" + bytes(18)),
    "program with text": later(lambda: program() + b"text" * 20),
    "program after weights": later(lambda: saved({"a": torch.zeros(2)}) + program()),
    "weights after a program": later(lambda: program() + saved({"a": torch.zeros(2)})),
    "program in capitals": later(lambda: program().replace(b"constants.pkl", b"Constants.pkl")),
    "program repacked": later(lambda: repacked(program())),
    "compressed": later(lambda: repacked(saved({"a": torch.zeros(4)}))),
    "unpacks to 400 MB": later(bomb),
    "package": later(lambda: repacked(saved({"a": torch.zeros(4)}), 0, **{"archive/.data/extern_modules": b"os"})),
    "code": later(lambda: repacked(saved({"a": torch.zeros(4)}), 0, **{"archive/code/a.py": b"import os"})),
    "tensor of a trillion": later(expanded),
    "two billion objects": data(memo(2**31 - 2)),
    "archive of nothing": data(b"PK\x05\x06" + bytes(18)),
    "start of an archive": data(b"PK\x03\x04" + bytes(100)),
    "tar with a pipe": later(tar_with_fifo),
    "no pickle": data(b"\x80\x02" + b"garbage" * 50),
    "long text": data(b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"x."),
    "nested deeply": data(b"\x80\x02" + b"](" * 100_000 + b"e" * 100_000 + b"."),
    "list of state": later(lambda: saved([1, 2, 3])),
    "state as text": later(lambda: saved({"state_dict": "text"})),
    "names as numbers": later(lambda: saved({1: torch.zeros(2), (2, 3): torch.zeros(1)})),
    "scalars": later(lambda: saved({"patch_embed.proj.weight": torch.tensor(1.0), "pos_embed": torch.tensor(2.0)})),
    "sparse": later(
        lambda: saved({"patch_embed.proj.weight": torch.eye(4).to_sparse(), "pos_embed": torch.zeros(1, 1, 4)})
    ),
    "on no device": later(
        lambda: saved({"patch_embed.proj.weight": torch.zeros(9, device="meta"), "pos_embed": torch.zeros(1, 1, 4)})
    ),
    "info as text": later(
        lambda: saved({"state_dict": dict(ViT(SHAPE).state_dict()), FORMAT: {"timm": "x", "prefix": 3}})
    ),
    "info of a billion": later(
        lambda: saved({"state_dict": dict(ViT(SHAPE).state_dict()), FORMAT: {"timm": {"depth": 10**9}, "positions": 5}})
    ),
    "pipe": fifo,
    "cut": later(lambda: saved({"a": torch.zeros(1000)})[:-200]),
}

_LAUGHS = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
)
_MERGES = "\n".join(
    ["a0: &a0 {k0: 1, l0: 2}"]
    + [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}], k{n}: 1}}" for n in range(1, 9)]
)
_RUNS = "{class_path: os.system, init_args: {command: touch ran}}"

CONFIGURATIONS: dict[str, Write] = {
    "billion laughs": data(_LAUGHS),
    "billion laughs as settings": data(f"{_LAUGHS}\nmodel: *a9\ndata: *a9"),
    "billion merges": data(_MERGES),
    "contains itself": data("model: &a {objective: *a}"),
    "list of itself": data("model: &a [*a, *a]"),
    "key of itself": data("&a ? *a : 1"),
    "nested deeply": data("[" * 5000),
    "maps nested deeply": data("{a: " * 5000),
    "blocks nested deeply": data("\n".join(" " * n + "a:" for n in range(1500))),
    "no UTF-8": data(b"model: \xff\xfe\x80"),
    "UTF-16": data("model: {}".encode("utf-16")),
    "a NUL": data("model: a\0b"),
    "of 1 MB": data("a: " + "x" * 10**6),
    "of many values": data("a: [" + "1, " * 400_000 + "1]"),
    "a tag of Python": data("model: !!python/object/apply:os.system ['touch ran']"),
    "a tag of a class": data("model: !!python/object/new:subprocess.Popen [['touch', 'ran']]"),
    "a long number": data("seed_everything: " + "9" * 5000),
    "a number of sixty": data("seed_everything: " + "1:" * 20_000 + "1"),
    "a date that is none": data("model: 2001-99-99"),
    "a list": data("- a\n- b"),
    "a text": data("just a text"),
    "nothing": data(""),
    "keys of numbers": data("1: 2\n3.5: {4: 5}"),
    "keys of lists": data("? [a, b]\n: c"),
    "keys of maps": data("? {a: b}\n: c"),
    "a recipe of a number": data("recipe: 3"),
    "a recipe of a list": data("recipe: [a, b]"),
    "an objective that runs": data(f"model: {{objective: {_RUNS}}}"),
    "a tokenizer that runs": data(
        f"model: {{objective: {{class_path: SplitMask, init_args: {{tokenizer: {_RUNS}}}}}}}"
    ),
    "a callback that runs": data(f"trainer: {{callbacks: [{_RUNS}]}}"),
    "a function of a callback that runs": data(
        f"trainer: {{callbacks: [{{class_path: lightning.pytorch.callbacks.LambdaCallback, init_args: {{setup: {_RUNS}}}}}]}}"
    ),
    "a logger that runs": data(f"trainer: {{logger: {_RUNS}}}"),
    "a datamodule that runs": data(f"data: {_RUNS}"),
    "an augmentation that runs": data(f"data: {{class_path: ImageFolder, init_args: {{root: ., augment: {_RUNS}}}}}"),
    "a class path of a number": data("model: {objective: {class_path: 3}}"),
    "a class path of a list": data("data: {class_path: [a]}"),
    "arguments as text": data("data: {class_path: ImageFolder, init_args: text}"),
    "precision": data("trainer: {precision: 16-true}"),
    "devices of a billion": data("trainer: {devices: 1000000000}"),
    "a network of a billion": data("model: {backbone: {depth: 1000000000}}"),
    "a pipe": fifo,
    "a device": link_to("/dev/zero"),
}

TABLES: dict[str, Write] = {
    "a NUL in a path": data("path,label\na\0b.png,x\n"),
    "a NUL in a label": data("path,label\nshapes/0.png,x\0\nshapes/1.png,y\n"),
    "nothing": data(""),
    "a header alone": data("path,label\n"),
    "a quote without end": data('path,label\n"' + "x" * 200_000),
    "a field of a million": data("path,label\n" + "x" * 10**6 + ",a\n"),
    "a path of 5,000": data("path,label\n" + "x" * 5000 + ".png,a\n"),
    "paths upwards": data("path,label\n../../../../etc/passwd,a\n/etc/hostname,b\n"),
    "a device": data("path,label\n/dev/zero,a\n/dev/random,b\n"),
    "a pipe": link_to_fifo,
    "a folder": data("path,label\nshapes,a\n.,b\n"),
    "no text": data(bytes(range(256)) * 10),
    "UTF-16 cut": data("path,label\na.png,x".encode("utf-16")[:-1]),
    "a workbook": data(b"PK\x03\x04" + bytes(100)),
    "10,000 columns": data(",".join(f"c{n}" for n in range(10_000)) + "\n" + "1," * 9_999 + "1\n"),
    "30,000 labels": data("path,label\n" + "".join(f"{n}.png,l{n}\n" for n in range(30_000))),
    "30,000 labels of words": data("path,label\n" + "".join(f"{n}.png,a{n} b{n % 300}\n" for n in range(30_000))),
    "twice the same": data("path,label\nshapes/0.png,a\nshapes/0.png,b\n"),
    "surrogates": data("path,label\n\ud800.png,a\n".encode("utf-8", "surrogatepass")),
    "a link to a device": link_to("/dev/zero"),
}

_SIZE = 40


def coco_set(
    root: Path, change: Callable[[dict[str, Any]], object] = lambda stored: None, text: bytes | None = None
) -> None:
    """A folder of four images with objects, whose annotation file is changed, or of any text."""
    (root / "train").mkdir(parents=True)
    (root / "annotations").mkdir()
    stored: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }
    for number in range(6):
        image = np.random.default_rng(number).integers(0, 256, (_SIZE, _SIZE, 3), dtype=np.uint8)
        Image.fromarray(image).save(root / "train" / f"{number}.png")
        stored["images"].append({"id": number, "file_name": f"{number}.png", "height": _SIZE, "width": _SIZE})
        stored["annotations"].append(
            annotation(number, number, 3, (5.0, 5.0, 20.0, 20.0)) | {"category_id": 1 + number % 2}
        )
    change(stored)
    file = root / "annotations" / "instances_train.json"
    file.write_bytes(json.dumps(stored).encode() if text is None else text)


def object_with(**values: Any) -> Write:
    return lambda root: coco_set(root, lambda stored: stored["annotations"][0].update(values))


def image_with(**values: Any) -> Write:
    return lambda root: coco_set(root, lambda stored: stored["images"][0].update(values))


def stored_as(text: bytes) -> Write:
    return lambda root: coco_set(root, text=text)


def runs(counts: Any, size: Any = None) -> Write:
    return object_with(segmentation={"size": size or [_SIZE, _SIZE], "counts": counts})


def replaced(name: str, write: Write) -> Write:
    """A set with one of its images replaced."""

    def make(root: Path) -> None:
        coco_set(root)
        (root / name).unlink()
        write(root / name)

    return make


ANNOTATIONS: dict[str, Write] = {
    "nested deeply": stored_as(b"[" * 10**6),
    "nested deeply as objects": stored_as(b'{"images":' * 10**5),
    "a long number": stored_as(b'{"images": [{"id": ' + b"9" * 5000 + b'}], "annotations": [], "categories": []}'),
    "no JSON": stored_as(b'{"images": ['),
    "a number": stored_as(b"3"),
    "no UTF-8": stored_as(b'{"images": "\xff\xfe"}'),
    "NaN": object_with(bbox=[float("nan")] * 4),
    "infinity": object_with(bbox=[0, 0, float("inf"), 1]),
    "height 2^63": image_with(height=2**63),
    "height of a billion": image_with(height=10**9, width=10**9),
    "height as text": image_with(height="40"),
    "height true": image_with(height=True),
    "a name of 5,000": image_with(file_name="x" * 5000 + ".png"),
    "a name of 5,000 with a folder": image_with(file_name="a/" * 2500 + "x.jpg"),
    "a name with a NUL": image_with(file_name="a\0b.png"),
    "a name as a list": image_with(file_name=["a"]),
    "a name upwards": image_with(file_name="../../../../etc/passwd"),
    "a name of a device": image_with(file_name="/dev/zero"),
    "an id as a list": image_with(id=[1]),
    "an id of nothing": image_with(id=None),
    "an object of no image": object_with(image_id=99),
    "an object of a list": object_with(image_id=[1]),
    "a category as text": object_with(category_id="x"),
    "a category of NaN": object_with(category_id=float("nan")),
    "an area of text": object_with(area="x"),
    "a crowd of text": object_with(iscrowd="x"),
    "a box of a long number": object_with(bbox=[0, 0, 10**300, 5]),
    "a box of lists": object_with(bbox=[[1], [2], [3], [4]]),
    "counts of 2 MB": runs("o" * 2 * 10**6),
    "counts of 2 MB of small ones": runs("1" * 2 * 10**6),
    "counts of 1 MB": runs("o" * (2**20 - 10) + "0"),
    "counts of other characters": runs("\u2603\u0000"),
    "counts as a long list": runs([1] * 10**6),
    "counts of huge numbers": runs([2**62, 2**62]),
    "counts of fractions": runs([0.5, _SIZE * _SIZE - 0.5]),
    "counts of lists": runs([[1], [2]]),
    "counts of negative ones": runs([-1, _SIZE * _SIZE + 1]),
    "a size of 2^40": runs([2**80], [2**40, 2**40]),
    "a size of text": runs([1600], ["a", "b"]),
    "a polygon of a million": object_with(segmentation=[[5.0, 5.0] * 500_000]),
    "a polygon far away": object_with(segmentation=[[-1e18, 0, 1e18, 5, 5, 1e18]]),
    "a polygon of NaN": object_with(segmentation=[[float("nan")] * 6]),
    "a polygon of text": object_with(segmentation=[["a"] * 6]),
    "a polygon of lists": object_with(segmentation=[[[1, 2]] * 6]),
    "an image that is a pipe": replaced("train/0.png", fifo),
    "an image that is a link to a device": replaced("train/0.png", link_to("/dev/zero")),
    "annotations that are a pipe": replaced("annotations/instances_train.json", fifo),
    "annotations that are a device": replaced("annotations/instances_train.json", link_to("/dev/zero")),
}


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, bits: int = 8, colour: int = 2, pixels: bytes = b"", *more: bytes) -> bytes:
    """A PNG whose header claims any size."""
    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + start + b"".join(more) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def zeros(length: int) -> bytes:
    """That many zeros, compressed."""
    packer = zlib.compressobj(1)
    block = bytes(2**20)
    parts = [packer.compress(block) for _ in range(length // len(block))]
    return b"".join([*parts, packer.compress(bytes(length % len(block))), packer.flush()])


def jpeg(**settings: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 30, 30)).save(buffer, "JPEG", **settings)
    return buffer.getvalue()


def many_scans() -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    buffer = io.BytesIO()
    Image.new("RGB", (2048, 2048), (200, 30, 30)).save(buffer, "JPEG", progressive=True)
    content = buffer.getvalue()
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last:-2] * 20_000 + b"\xff\xd9"


def tiff(entries: list[tuple[int, int, int, int]], loop: bool = False) -> bytes:
    """A little-endian TIFF of one directory: (tag, type, count, value) each."""
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", 8 if loop else 0)


def encoded_array(kind: str, pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def encoded(kind: str, mode: str, size: tuple[int, int], **settings: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, kind, **settings)
    return buffer.getvalue()


def dicom(syntax: str = ExplicitVRLittleEndian, **elements: Any) -> bytes:
    """A DICOM image of 16 bits, with elements that may claim anything."""
    buffer = io.BytesIO()
    pixels = np.arange(64 * 48, dtype=np.uint16).reshape(48, 64)
    dicom_dataset(pixels, syntax, **elements).save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def dicom_of_sequences(depth: int) -> bytes:
    """A DICOM image with sequences in sequences, of unknown lengths, before its pixels."""
    sequence = b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\0\xe0\xff\xff\xff\xff"
    content = dicom()
    place = content.index(b"\x28\0\x02\0US")  # after the class, before the image
    return content[:place] + sequence * depth + content[place:]


def dicom_with_jpeg2000(side: int, **elements: Any) -> bytes:
    """A DICOM image of compressed pixels."""
    return dicom(JPEG2000Lossless, PixelData=encapsulate([encoded("JPEG2000", "L", (side, side))]), **elements)


_EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(ran) (w) file closefile\nshowpage\n"
_BASIC = [
    (256, 3, 1, 50_000),
    (257, 3, 1, 50_000),
    (258, 3, 1, 8),
    (259, 3, 1, 1),
    (262, 3, 1, 1),
    (273, 4, 1, 8),
    (279, 4, 1, 9),
]

IMAGES: dict[str, Write] = {
    "30000 x 30000 of one bit": later(lambda: png(30_000, 30_000, 1, 0, zeros(30_000 * 3_751))),
    "2^31 - 1 x 1": data(png(2**31 - 1, 1)),
    "2^31 - 1 x 2^31 - 1": data(png(2**31 - 1, 2**31 - 1)),
    "0 x 0": data(png(0, 0)),
    "a text of 200 MB": later(lambda: png(8, 8, 8, 2, zeros(200), chunk(b"zTXt", b"k\0\0" + zeros(2 * 10**8)))),
    "a text of 200 MB, not packed": later(
        lambda: png(8, 8, 8, 2, zeros(200), chunk(b"tEXt", b"k\0" + b"x" * 2 * 10**8))
    ),
    "a profile of 200 MB": later(lambda: png(8, 8, 8, 2, zeros(200), chunk(b"iCCP", b"k\0\0" + zeros(2 * 10**8)))),
    "100,000 texts": later(lambda: png(8, 8, 8, 2, zeros(200), chunk(b"tEXt", b"k\0v") * 100_000)),
    "169 megapixels": later(lambda: png(13_000, 13_000, 8, 2, zeros(13_000 * 39_001))),
    "100 megapixels with transparency": later(lambda: png(10_000, 10_000, 8, 6, zeros(10_000 * 40_001))),
    "100 megapixels of 16 bits": later(lambda: png(10_000, 10_000, 16, 0, zeros(10_000 * 20_001))),
    "more pixels than there are": data(png(9_000, 9_000, 8, 2, zeros(100))),
    "fewer pixels than there are": data(png(2, 2, 8, 2, zeros(10**6))),
    "an unknown chunk": data(png(2, 2, 8, 2, zeros(14), chunk(b"AbCd", b"x"))),
    "a chunk beyond the file": data(png(2, 2)[:33] + struct.pack(">I", 2**31 - 1) + b"IDAT"),
    "EPS": data(_EPS),
    "PDF": data(b"%PDF-1.4\n1 0 obj\n"),
    "a WMF": data(b"\xd7\xcd\xc6\x9a" + bytes(100)),
    "SVG": data(b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
    "nothing": data(b""),
    "a web page": data(b"<!DOCTYPE html>"),
    "a pipe": fifo,
    "a link to a pipe": link_to_fifo,
    "a link to a device": link_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a cut JPEG": later(lambda: jpeg()[:300]),
    "a JPEG of 65,500 x 65,500": later(lambda: jpeg().replace(b"\0\x40\0\x40", b"\xff\xdc\xff\xdc", 1)),
    "a JPEG of 20,000 scans": later(many_scans),
    "a JPEG of zeros": later(lambda: jpeg()[:200] + bytes(10_000)),
    "EXIF of garbage": later(lambda: jpeg(exif=b"Exif\0\0II*\0" + b"\xff" * 200)),
    "EXIF in a circle": later(lambda: jpeg(exif=b"Exif\0\0" + tiff([(0x8769, 4, 1, 8)], loop=True))),
    "a TIFF in a circle": data(tiff(_BASIC, loop=True)),
    "a TIFF beyond the file": data(tiff([(256, 4, 2**31 - 1, 8), *_BASIC[1:]])),
    "a TIFF of 2^32 tiles": data(tiff([(256, 4, 1, 2**31 - 1), (257, 4, 1, 2**31 - 1), *_BASIC[2:]])),
    "a TIFF of a tile of 2^31": data(
        tiff([*_BASIC[:5], (322, 4, 1, 2**31 - 1), (323, 4, 1, 2**31 - 1), (324, 4, 1, 8)])
    ),
    "a TIFF without a size": data(tiff(_BASIC[2:])),
    "a GIF of 65,535 x 65,535": data(b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x02\x02D\x01\0;"),
    "a BMP of 2^31": data(
        b"BM" + struct.pack("<IIIIiiHHIIiiII", 90, 0, 54, 40, 2**31 - 1, 2**31 - 1, 1, 24, 0, 0, 0, 0, 0, 0)
    ),
    "a BMP of negative size": data(
        b"BM" + struct.pack("<IIIIiiHHIIiiII", 90, 0, 54, 40, -5, -5, 1, 24, 0, 0, 0, 0, 0, 0)
    ),
    "a PPM of a billion": data(b"P6 1000000000 1000000000 255\n"),
    "a PPM of text": data(b"P6 a b c\n"),
    "a PGM of long numbers": data(b"P5 " + b"9" * 5000 + b" 2 255\n"),
    "a TGA of noise": later(lambda: np.random.default_rng(0).bytes(2000)),
    "a JPEG 2000 of 120 megapixels": later(lambda: encoded("JPEG2000", "RGB", (11_000, 11_000))),
    "a WebP cut": later(lambda: encoded("WEBP", "RGB", (64, 64))[:40]),
    "a WebP that claims 16,383": later(
        lambda: encoded("WEBP", "RGB", (64, 64), lossless=True).replace(b"\x2f\x3f\xc0\x0f", b"\x2f\xff\xff\xff", 1)
    ),
    "a cut DICOM": later(lambda: dicom()[:-1000]),
    "a DICOM cut in its header": later(lambda: dicom()[:600]),
    "a DICOM of 65,535 x 65,535": later(lambda: dicom(Rows=65_535, Columns=65_535)),
    "a DICOM that claims 64 megapixels": later(lambda: dicom(Rows=8_000, Columns=8_000)),
    "a DICOM without a decoder": later(lambda: dicom(JPEGLSLossless, PixelData=encapsulate([b"\xff\xd8\xff\xf7"]))),
    "a DICOM of a billion frames": later(lambda: dicom(NumberOfFrames=10**9)),
    "a DICOM of 30,000 sequences": later(lambda: dicom_of_sequences(30_000)),
    "a DICOM of a long element": later(lambda: dicom().replace(b"OW\0\0\0\x18\0\0", b"OW\0\0\xf0\xff\xff\xff", 1)),
    "a deflated DICOM of 200 MB": later(
        lambda: dicom(DeflatedExplicitVRLittleEndian, PixelData=bytes(2 * 10**8), Rows=10_000, Columns=10_000)
    ),
    "a DICOM of a JPEG 2000 of 120 megapixels": later(
        lambda: dicom_with_jpeg2000(11_000, BitsAllocated=8, BitsStored=8, HighBit=7)
    ),
    "a DICOM of JPEG 2000 that is cut": later(lambda: dicom_with_jpeg2000(64)[:-60]),
    "a DICOM of RLE of noise": later(
        lambda: dicom(RLELossless, PixelData=encapsulate([np.random.default_rng(0).bytes(3000)]))
    ),
    "a DICOM whose intercept is text": later(
        lambda: dicom(RescaleSlope="1", RescaleIntercept="7").replace(b"DS\x02\x007 ", b"DS\x02\0xy")
    ),
    "a TIFF of floats that are no numbers": later(
        lambda: encoded_array("TIFF", np.full((40, 40), np.nan, dtype=np.float32))
    ),
    "an AVIF cut": later(lambda: encoded("AVIF", "RGB", (64, 64))[:200]),
}
