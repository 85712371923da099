"""Makes the index of a folder once: scans the images, cuts missing splits, reports duplicates and conflicts."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from lit_splitmask.errors import UserError
from lit_splitmask.images.changes import check_unchanged
from lit_splitmask.images.folder_names import same_name
from lit_splitmask.images.index import (
    FolderIndex,
    SplitOptions,
    check_options,
    folder_in,
    has_index,
    load_index,
    save_index,
    split_settings,
    stored_at,
)
from lit_splitmask.images.layout import Layout, understand
from lit_splitmask.images.records import Records
from lit_splitmask.images.scan import Storing, scan
from lit_splitmask.images.split import SPLIT_NAMES, Splits, check_shares, cut, drop_shared, find_conflicts, join
from lit_splitmask.images.tree import Tree

log = logging.getLogger(__name__)

IN_PLAN = {"in_plan": True}
"""Marks messages that ``plan`` leaves out, since it says the same itself."""

_reported: set[tuple[str, str]] = set()  # roots and lines


def load_or_make(
    root: str | Path,
    index_dir: str | Path,
    options: SplitOptions,
    storing: Storing | None = None,
    name: str = "splits.npz",
    tree: Tree | None = None,
) -> FolderIndex:
    """Loads the index of a folder; the first call makes it, which decodes every image. What is left out is logged in any case.

    Args:
        root: The folder.
        index_dir: Directory of the indexes of all folders.
        options: How the folder is read and split.
        storing: Receives the images as they are decoded.
        name: File name of the index.
        tree: The files of the folder, if they are known.

    Raises:
        UserError: The folder cannot be used, has changed since it was split, or was split with other options.
    """
    root = Path(root)
    path = folder_in(index_dir, root) / name
    index = load_index(path) if has_index(path) else None
    if index is not None:
        check_options(index, options)
    tree = tree or Tree.read(root)
    layout = understand(root, options.labels, options.layout, tree)
    _report_left_out(layout, tree)
    if index is None:
        return _make_index(root, path, options, layout, storing)
    is_same = sorted(map(same_name, index.classes)) == layout.classes and index.class_level == layout.class_level
    if not is_same:
        way = "Restore the folder" if "layout" in index.options else "Pass the --layout that was meant then"
        raise UserError(
            f"{root} is read differently than when it was split: now as {layout.description}, because {layout.because}; before "
            f"as {index.layout}. {way}, or delete {stored_at(path)} to make a new split; weights and scores from the old "
            "split can't be compared with those from a new one."
        )
    return check_unchanged(index, set(layout.files))


def _make_index(root: Path, path: Path, options: SplitOptions, layout: Layout, storing: Storing | None) -> FolderIndex:
    """Scans and splits a folder, and saves its index at ``path``."""
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
    strata: Mapping[str, int] | None = None,
    storing: Storing | None = None,
) -> FolderIndex:
    """Scans listed images, cuts missing splits, and saves the index at ``path``.

    Args:
        root: Folder that the paths are relative to.
        path: File of the index.
        options: How missing splits are cut.
        files: Sorted paths of the images.
        layout: Description of the layout, in one line.
        classes: Sorted class names; empty without labels.
        labels: Label by file; ignored without classes.
        given: Images of each split that exists already.
        groups: Group by file; images of one group stay in one split.
        class_level: Which part of a path names the class; None to store ``labels`` in the index.
        list_digest: Digest of the list that names the images.
        strata: Class by file by which splits are cut; None for the label.
        storing: Receives the images as they are decoded.

    Raises:
        UserError: A share is out of range, or the images cannot be used.
    """
    check_shares(options.val_share, options.test_share or 0.0)
    records = scan(root, files, options.max_bad_share, storing)
    readable = {file: record for file, record in records.items() if record.hash}
    hashes = {file: record.hash for file, record in readable.items()}
    labels = labels if classes else dict.fromkeys(files, -1)
    present = {name: [file for file in members if file in readable] for name, members in given.items()}
    splits, dropped = drop_shared(present, hashes)
    _warn_about_divided_groups(splits, groups or {})
    test_share = options.test_share if options.test_share is not None else (0.2 if classes else 0.0)
    shares = {"test": test_share, "val": options.val_share}
    missing = {name: share for name, share in shares.items() if share > 0 and name not in splits}
    keys = join(hashes, groups or {})
    whole = splits.get("train", list(readable))
    splits |= cut(whole, keys, strata or labels, shares=missing, seed=options.seed)
    index = FolderIndex(
        root=root.resolve(),
        path=path,
        options=split_settings(options),
        layout=layout,
        classes=classes,
        class_level=class_level or 0,
        files=Records.of(readable),
        unreadable=Records.of({file: record for file, record in records.items() if not record.hash}),
        splits={name: splits[name] for name in SPLIT_NAMES if splits.get(name)},  # type: ignore[misc]
        file_labels=np.array([labels[file] for file in sorted(readable)] if classes else [], dtype=np.int32),
        lists_labels=bool(classes) and class_level is None,
        dropped=dropped,
        conflicts=find_conflicts(splits["train"], hashes, labels),
        list_digest=list_digest,
    )
    _report(index)
    _report_cut(index, missing, len(whole), "training images" if "train" in given else "images")
    save_index(index)
    return index


def _warn_about_divided_groups(splits: Splits, groups: Mapping[str, str]) -> None:
    """Warns about groups with images in several of the given splits."""
    splits_of: dict[str, set[str]] = {}
    for name, files in splits.items():
        for file in files:
            if file in groups:
                splits_of.setdefault(groups[file], set()).add(name)
    divided = sorted(group for group, names in splits_of.items() if len(names) > 1)
    if divided:
        log.warning(
            "%d group(s) have images in more than one of the given splits, such as %s: scores will be too optimistic.",
            len(divided),
            ", ".join(divided[:3]),
        )


def _report_left_out(layout: Layout, tree: Tree) -> None:
    """Names what is not used, once per process: images that the layout leaves out, and files of kinds that are not read."""
    lines = [(logging.INFO, f"{tree.root} is read as {layout.description}. Evidence: {layout.because}.")]
    for where, files in layout.left_out.items():
        shown = ", ".join(files[:3])
        lines.append((logging.WARNING, f"{len(files):,} image(s) {where} are left out, such as {shown}."))
    lines += [(logging.WARNING, f"Not read: {line}.") for line in tree.describe_left_out()]
    alike = Counter("".join(name.casefold().split()) for name in layout.classes)
    similar = [name for name in layout.classes if alike["".join(name.casefold().split())] > 1]
    if similar:
        names = ", ".join(similar)
        lines.append(
            (
                logging.WARNING,
                f"These classes differ in capitals or spaces only: {names}. Rename them if they are the same.",
            )
        )
    for level, line in lines:
        if (str(tree.root), line) not in _reported:
            _reported.add((str(tree.root), line))
            log.log(level, "%s", line, extra=IN_PLAN if level == logging.INFO else None)


def _report_cut(index: FolderIndex, names: Iterable[str], num_images: int, kind: str) -> None:
    """Says which images were held out from training, since no folder or list decided that."""
    for name in names:
        if name in index.splits:
            count = len(index.splits[name])
            log.info("%s of your %s %s were set aside as %s.", f"{count:,}", f"{num_images:,}", kind, name)


def _report(index: FolderIndex) -> None:
    for entry in index.dropped:
        log.warning("%s: removed from %s.", entry.describe(), entry.split)
    if index.dropped:
        log.warning("%d image(s) were removed because another split holds the same pixels.", len(index.dropped))
    for group in index.conflicts:
        log.warning("These training images are identical but have different labels: %s.", ", ".join(group))
    log.info("%s", index.describe(), extra=IN_PLAN)
