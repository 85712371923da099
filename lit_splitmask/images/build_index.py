"""Makes the record of a folder, once: scans its images, cuts the splits that are missing, reports what is odd."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from lit_splitmask.images.index import (
    FolderIndex,
    SplitOptions,
    check_options,
    check_unchanged,
    deciding,
    folder_in,
    load_index,
    save_index,
)
from lit_splitmask.images.layout import list_images, understand
from lit_splitmask.images.scan import Storing, scan
from lit_splitmask.images.split import Splits, check_shares, cut, drop_shared, find_conflicts, join

log = logging.getLogger(__name__)


def load_or_make(
    root: str | Path,
    index_dir: str | Path,
    options: SplitOptions,
    storing: Storing | None = None,
    name: str = "splits.json",
) -> FolderIndex:
    """The record of a folder; only the first call decodes anything.

    Args:
        root: The folder.
        index_dir: Where the records of all folders are kept.
        options: How the folder is read and split.
        storing: Gets the images when they are decoded.
        name: Of the record.

    Raises:
        UserError: The folder cannot be used, has changed since, or was split with other options.
    """
    path = folder_in(index_dir, Path(root)) / name
    if not path.exists():
        return make_index(Path(root), path, options, storing)
    index = load_index(path)
    check_options(index, options)
    return check_unchanged(index, _known_or_inside(index, list_images(index.root)))


def make_index(root: Path, path: Path, options: SplitOptions, storing: Storing | None = None) -> FolderIndex:
    """Scans a folder, splits it, reports what is odd about it, and keeps the record at ``path``.

    Raises:
        UserError: The folder cannot be used.
    """
    layout = understand(root, options.labels)
    return make_from_lists(
        root,
        path,
        options,
        files=layout.files,
        layout=layout.description,
        classes=layout.classes,
        labels=layout.labels(),
        given=layout.given,
        class_level=layout.class_level,
        storing=storing,
    )


def make_from_lists(
    root: Path,
    path: Path,
    options: SplitOptions,
    *,
    files: Sequence[str],
    layout: str,
    classes: list[str],
    labels: Mapping[str, int],
    given: Mapping[str, Sequence[str]],
    groups: Mapping[str, str] | None = None,
    class_level: int | None = None,
    list_digest: str = "",
    storing: Storing | None = None,
) -> FolderIndex:
    """Scans listed images, cuts the splits that are missing, reports what is odd, and keeps the record at ``path``.

    Args:
        root: What the paths are relative to.
        path: Where the record is kept.
        options: How missing splits are cut.
        files: Sorted.
        layout: What was understood, in one line.
        classes: Sorted class names; empty without labels.
        labels: By file; not looked at without classes.
        given: The images of each split that is given.
        groups: By file; images of one group stay in one split.
        class_level: Which part of a path names the class; None to keep ``labels`` in the record.
        list_digest: Of the list, for the record.
        storing: Gets the images when they are decoded.

    Raises:
        UserError: The images cannot be used.
    """
    check_shares(options.val_share, options.test_share or 0.0)
    records = scan(root, files, options.max_bad_share, storing)
    readable = {file: record for file, record in records.items() if record.hash}
    hashes = {file: record.hash for file, record in readable.items()}
    labels = labels if classes else dict.fromkeys(files, -1)
    present = {name: [file for file in members if file in readable] for name, members in given.items()}
    splits, dropped = drop_shared(present, hashes)
    _warn_of_torn(splits, groups or {})
    test_share = options.test_share if options.test_share is not None else (0.2 if classes else 0.0)
    wanted = {"test": test_share, "val": options.val_share}
    shares = {name: share for name, share in wanted.items() if share > 0 and name not in splits}
    together = join(hashes, groups or {})
    splits |= cut(splits.get("train", list(readable)), together, labels, shares=shares, seed=options.seed)
    index = FolderIndex(
        root=root.resolve(),
        path=path,
        options=deciding(options),
        layout=layout,
        classes=classes,
        class_level=class_level or 0,
        files=readable,
        unreadable={file: record for file, record in records.items() if not record.hash},
        splits={name: splits[name] for name in ("train", "val", "test") if splits.get(name)},
        dropped=dropped,
        conflicts=find_conflicts(splits["train"], hashes, labels),
        given_labels={file: labels[file] for file in readable} if classes and class_level is None else {},
        list_digest=list_digest,
    )
    _report(index)
    save_index(index)
    return index


def _warn_of_torn(splits: Splits, groups: Mapping[str, str]) -> None:
    """Tells of groups that the given splits tear apart."""
    places: dict[str, set[str]] = {}
    for name, files in splits.items():
        for file in files:
            if file in groups:
                places.setdefault(groups[file], set()).add(name)
    torn = sorted(group for group, names in places.items() if len(names) > 1)
    if torn:
        log.warning(
            "%d group(s) stand in more than one of the given splits, such as %s: scores will be too good.",
            len(torn),
            ", ".join(torn[:3]),
        )


def _known_or_inside(index: FolderIndex, files: list[str]) -> set[str]:
    """Leaves out files beside the split folders, which were never part of the record."""
    if index.class_level == 0:
        return set(files)
    folders = {file.split("/")[0] for file in index.files | index.unreadable}
    return {file for file in files if file.split("/")[0] in folders}


def _report(index: FolderIndex) -> None:
    for entry in index.dropped:
        log.warning("%s: taken out of %s.", entry.describe(), entry.split)
    if index.dropped:
        log.warning("%d image(s) were taken out, because another split holds the same pixels.", len(index.dropped))
    for group in index.conflicts:
        log.warning("These train images are identical, but carry different labels: %s.", ", ".join(group))
    log.info("%s", index.describe())
