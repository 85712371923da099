"""Whether the images of a folder are still those of its index."""

import os
from dataclasses import replace

from lit_splitmask.errors import UserError
from lit_splitmask.images.index import FolderIndex, save_index, stored_at
from lit_splitmask.images.records import Records
from lit_splitmask.images.scan import examine, in_threads


def check_unchanged(index: FolderIndex, present: set[str]) -> FolderIndex:
    """Compares the images of a folder with its index, by names, sizes and modification times.

    An image with a new time but the same pixels, as in a copied folder, is unchanged; the index is saved with the new time.

    Args:
        index: The index.
        present: The images in the folder now.

    Returns:
        The index, with current modification times.

    Raises:
        UserError: Images were added, removed or changed.
    """
    touched, missing = [], []
    for records in (index.files, index.unreadable):  # column by column: a dictionary of a million records takes 1 GB
        for file, size, mtime in zip(records.names, records.sizes.tolist(), records.mtimes.tolist(), strict=True):
            if file not in present:
                missing.append(file)
            elif _is_touched(f"{index.root}/{file}", size, mtime):
                touched.append(file)
    known = {file: index.files.get(file) or index.unreadable[file] for file in touched}
    num_known = len(index.files) + len(index.unreadable) - len(missing)
    examined = in_threads(lambda file: examine(index.root / file)[0], touched, f"Reading {index.root.name} again")
    current = dict(zip(touched, examined, strict=True))
    changes = {
        "added": sorted(present.difference(index.files, index.unreadable)) if len(present) > num_known else [],
        "missing": sorted(missing),
        "changed": [file for file in touched if current[file].hash != known[file].hash],
    }
    if not any(changes.values()):
        if touched:
            files, unreadable = (
                Records.of({file: current.get(file, record) for file, record in records.as_dict().items()})
                for records in (index.files, index.unreadable)
            )
            index = replace(index, files=files, unreadable=unreadable)
        if touched or not index.path.exists():  # an index of an earlier version is rewritten
            save_index(index)
        return index
    listed = "; ".join(
        f"{len(files)} {kind} ({', '.join(files[:3])}{', …' if len(files) > 3 else ''})"
        for kind, files in changes.items()
        if files
    )
    raise UserError(
        f"The images in {index.root} have changed since they were split: {listed}. Restore them, or delete "
        f"{stored_at(index.path)} to make a new split; weights and scores from the old split can't be compared with those from "
        "the new one."
    )


def _is_touched(path: str, size: int, mtime_ns: int) -> bool:
    """Whether a file's size or modification time differs from its record."""
    try:
        status = os.stat(path)
    except OSError:
        return size != 0
    return (status.st_size, status.st_mtime_ns) != (size, mtime_ns)
