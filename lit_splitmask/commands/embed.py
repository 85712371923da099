"""``lit-splitmask embed``: writes a backbone's features of all images, and draws a map of them."""

import os
import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from lit_splitmask.commands.frozen import Frozen
from lit_splitmask.commands.map_page import thumbnail, write_map_page
from lit_splitmask.commands.plots import draw_map, on_a_map
from lit_splitmask.commands.request import Request
from lit_splitmask.commands.run_cli import quiet
from lit_splitmask.errors import UserError
from lit_splitmask.files import partial_name
from lit_splitmask.reserved import reserved
from lit_splitmask.shell import say


@dataclass
class Options:
    """Options of ``embed``.

    Attributes:
        out: The file, ending in ``.npz``; by default ``runs/embed-<weights>-<images>.npz``. The map is a PNG of the same name,
            and, if bokeh is installed, an HTML page with thumbnails.
        most_on_map: Largest number of images on the map, evenly spaced.
    """

    out: str | None = None
    most_on_map: int = 2_000


def embed(request: Request) -> int:
    """Writes the features of the images of all splits.

    Raises:
        UserError: The images, the weights or the options cannot be used, or the output file exists or cannot be written.
    """
    quiet()
    frozen = Frozen(request, Options)
    out = Path(frozen.options.out or f"runs/embed-{frozen.name}.npz")
    if out.suffix != ".npz" or out.exists():
        problem = "already exists" if out.exists() else "does not end in .npz"
        raise UserError(f"{out} {problem}: give another file with --out FILE.npz.")
    with reserved(out, "give another file with --out FILE.npz"):
        frozen.open()
        partial = partial_name(out)
        try:
            with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
                on_map, labels = _write(archive, frozen)
            os.replace(partial, out)
        except OSError as error:
            raise UserError(
                f"{out} cannot be written ({error}): free some disk space, or give another --out."
            ) from error
        finally:
            partial.unlink(missing_ok=True)
    written = f"{out} (numpy.load reads it)"
    if len(on_map) > 2:
        picture = out.with_suffix(".png")
        points = on_a_map(on_map)
        draw_map(points, labels, frozen.data.class_names, picture)
        written += f" and {picture}"
        if find_spec("bokeh") is not None:
            _write_page(out.with_suffix(".html"), frozen, points, labels)
            written += f", and the map with thumbnails, {out.with_suffix('.html')}"
        else:
            written += ". For a map with thumbnails: pip install 'lit-splitmask[plots]'"
    say(f"Wrote {written}.")
    return 0


def _write_page(path: Path, frozen: Frozen[Options], points: np.ndarray, labels: np.ndarray) -> None:
    """Writes the map with thumbnails."""
    step, seen = _step(frozen), 0
    names, on_splits, thumbnails = [], [], []
    for name, samples in frozen.data.source.splits.items():
        shown = samples.subset(list(range(-seen % step, len(samples), step)))
        seen += len(samples)
        if not len(shown):
            continue
        names += list(shown.files)
        on_splits += [name] * len(shown)
        for batch in frozen.data.eval_loader(shown):
            thumbnails += [thumbnail(image) for image in batch["image"]]
    write_map_page(path, points, labels, frozen.data.class_names, names=names, splits=on_splits, thumbnails=thumbnails)


def _step(frozen: Frozen[Options]) -> int:
    """Of how many images one is on the map."""
    return -(-sum(map(len, frozen.data.source.splits.values())) // frozen.options.most_on_map)


def _write(archive: zipfile.ZipFile, frozen: Frozen[Options]) -> tuple[np.ndarray, np.ndarray]:
    """Writes the features batch by batch; returns the features on the map (n, D) and their labels (n,)."""
    splits = frozen.data.source.splits
    total = sum(len(samples) for samples in splits.values())
    step = _step(frozen)
    on_map, label_batches, num_seen = [], [], 0
    with archive.open("features.npy", "w", force_zip64=True) as stream:
        header = {"descr": "<f4", "fortran_order": False, "shape": (total, frozen.vit.embed_dim)}
        np.lib.format.write_array_header_2_0(stream, header)
        for name, samples in splits.items():
            for (features,), labels in frozen.features(samples, f"{name.title()} images"):
                stream.write(np.ascontiguousarray(features.numpy(), dtype="<f4").tobytes())
                on_map.append(features.numpy()[-num_seen % step :: step])
                label_batches.append(labels.numpy())
                num_seen += len(labels)
    all_labels = np.concatenate(label_batches)
    files = [file for samples in splits.values() for file in samples.files]
    columns = {
        "path": np.array(files),
        "label": all_labels,
        "split": np.repeat(list(splits), [len(samples) for samples in splits.values()]),
        "class_names": np.array(frozen.data.class_names, dtype=str),
    }
    for name, column in columns.items():
        with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
            np.lib.format.write_array(stream, column, allow_pickle=False)
    return np.concatenate(on_map), all_labels[::step]
