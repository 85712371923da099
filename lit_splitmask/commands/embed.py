"""``lit-splitmask embed``: a backbone's features of all images, as a file and as a map."""

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lit_splitmask.commands.frozen import Frozen
from lit_splitmask.commands.plots import draw_map
from lit_splitmask.commands.request import Request
from lit_splitmask.commands.run_cli import quiet
from lit_splitmask.errors import UserError
from lit_splitmask.files import partial_name


@dataclass
class Options:
    """What is embedded.

    Attributes:
        out: the file, ends in ``.npz``; by default ``runs/embed-<weights>-<images>.npz``. The map is a PNG of the same name.
        most_on_map: images on the map, evenly spaced.
    """

    out: str | None = None
    most_on_map: int = 2_000


def embed(request: Request) -> int:
    """``lit-splitmask embed``: features of all splits of any of the datamodules."""
    quiet()
    frozen = Frozen(request, Options)
    out = Path(frozen.options.out or f"runs/embed-{frozen.name}.npz")
    if out.suffix != ".npz" or out.exists():
        problem = "exists already" if out.exists() else "does not end in .npz"
        raise UserError(f"{out} {problem}: give another file by --out FILE.npz.")
    frozen.open()
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_name(out)
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            on_map, labels = _write(archive, frozen)
        os.replace(partial, out)
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error}): free some space, or give another --out.") from error
    finally:
        partial.unlink(missing_ok=True)
    picture = out.with_suffix(".png")
    if len(on_map) > 2:
        draw_map(on_map, labels, frozen.data.class_names, picture)
    print(f"Wrote {out}" + (f" and {picture}" if len(on_map) > 2 else "") + ". Read it by numpy.load.")
    return 0


def _write(archive: zipfile.ZipFile, frozen: Frozen) -> tuple[np.ndarray, np.ndarray]:
    """Writes batch by batch; returns some of the features, (n, D), and their labels, for the map."""
    splits = frozen.data.source.splits
    total = sum(len(samples) for samples in splits.values())
    step = -(-total // frozen.options.most_on_map)
    on_map, seen, num_seen = [], [], 0
    with archive.open("features.npy", "w", force_zip64=True) as stream:
        header = {"descr": "<f4", "fortran_order": False, "shape": (total, frozen.vit.embed_dim)}
        np.lib.format.write_array_header_2_0(stream, header)
        for name, samples in splits.items():
            for (features,), labels in frozen.features(samples, f"{name.title()} images"):
                stream.write(np.ascontiguousarray(features.numpy(), dtype="<f4").tobytes())
                on_map.append(features.numpy()[-num_seen % step :: step])
                seen.append(labels.numpy())
                num_seen += len(labels)
    all_labels = np.concatenate(seen)
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
