"""Which image belongs to which label map, in all common layouts."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lit_splitmask.annotations.pair_folders import Key, PairFolders
from lit_splitmask.annotations.pair_lists import listed_splits
from lit_splitmask.annotations.pair_names import match
from lit_splitmask.errors import UserError
from lit_splitmask.images.folder_names import Role, means_images, split_of
from lit_splitmask.images.tree import Tree, check_has_images

ADE20K, ADE20K_NAMES = "ADEChallengeData2016", "objectInfo150.txt"

WAYS = (
    "DIR/images/train/a.jpg with DIR/annotations/train/a.png (also val and test; masks/ or labels/ for annotations/), "
    "DIR/train/images/a.jpg with DIR/train/masks/a.png, or DIR/images/a.jpg with DIR/masks/a.png"
)


@dataclass(frozen=True)
class Pairs:
    """Which files belong together; paths are relative to the root.

    Attributes:
        splits: Images by split, sorted; those without maps are under ``unlabelled``.
        maps: Label map by image.
        is_ade20k: Whether it is ADE20K's scene parsing benchmark, as its folder's name or its table of classes says.
        left_out: Files that are not used, and why: reason -> files.
    """

    splits: dict[str, list[str]]
    maps: dict[str, str]
    is_ade20k: bool
    left_out: dict[str, list[str]] = field(default_factory=dict)


def looks_like_segmentation(root: Path, tree: Tree | None = None) -> bool:
    """Whether a folder holds images with label maps, as the names or the content of its folders show.

    It is also true where the maps belong to no image by their names, since the folder is nothing else.
    """
    folders = PairFolders.sort(tree or Tree.read(root))
    return bool(folders.pairs()) or any(folders.are_maps_of_unknown_images(key) for key in folders.maps)


def find_pairs(root: Path, tree: Tree | None = None) -> Pairs:
    """Lists images and finds their maps.

    A folder without maps holds images to predict, and nothing else.

    Raises:
        UserError: There are no images, some of a labelled split have no map, several folders are for one split or hold maps of
            the same images, or two images have the same map.
    """
    tree = tree or Tree.read(root)
    check_has_images(tree)
    folders = PairFolders.sort(tree)
    if not folders.maps:
        return Pairs({"unlabelled": tree.images}, {}, is_ade20k=False)
    pairs = folders.pairs()
    if not pairs:
        _refuse_unpaired(root, folders)
    collected = _Collected(root, tree, folders, pairs)
    for key in sorted(folders.images):
        collected.take(key)
    for key in sorted(folders.maps):
        if key not in folders.images:
            collected.leave_out(
                f"label maps in {_folder(folders.maps[key])} that belong to no image", folders.maps[key]
            )
    collected.leave_out("maps of instances and pictures of maps", folders.not_read)
    is_ade20k = (root / ADE20K).is_dir() or root.name == ADE20K or (root / ADE20K_NAMES).is_file()
    splits = {name: sorted(files) for name, files in collected.splits.items() if files}
    return Pairs(splits, collected.maps, is_ade20k, collected.left_out)


def images_to_predict(root: Path, tree: Tree | None = None) -> list[str]:
    """All images of a folder, sorted: with label maps beside them, the images alone, with and without maps.

    Raises:
        UserError: There are no images.
    """
    tree = tree or Tree.read(root)
    check_has_images(tree)
    folders = PairFolders.sort(tree)
    pairs = [key for key in folders.pairs() if not folders.look_like_photos(folders.maps[key])]
    maps = {file for key in pairs for file in folders.maps[key]}
    if pairs:
        maps |= set(folders.not_read)
    return [file for file in tree.images if file not in maps]


def folders_of_images(root: Path, tree: Tree | None = None) -> list[str]:
    """The folders of a segmentation set that hold its training images alone, for pre-training."""
    pairs = find_pairs(root, tree)
    files = pairs.splits.get("train") or next(iter(pairs.splits.values()))
    return sorted({str(root / _folder([file])) for file in files})


class _Collected:
    """The pairs of a folder, collected key by key."""

    def __init__(self, root: Path, tree: Tree, folders: PairFolders, pairs: Sequence[Key]) -> None:
        self.root, self.tree, self.folders, self.pairs = root, tree, folders, set(pairs)
        self.splits: dict[str, list[str]] = defaultdict(list)
        self.maps: dict[str, str] = {}
        self.left_out: dict[str, list[str]] = {}
        roles = {_role(key) for key in pairs}
        self.has_splits = "train" in roles
        self.may_have_lists = roles == {None}

    def take(self, key: Key) -> None:
        """Takes the images of a key, with their maps."""
        files, role = self.folders.images[key], _role(key)
        if key not in self.folders.maps:
            is_beside_a_pair = bool(key) and key[:-1] in self.pairs and split_of(key[-1]) is None
            self._take_without_maps(files, role, is_beside_a_pair=is_beside_a_pair)
        elif role in ("unlabelled", "predict") or (role is None and self.has_splits):
            self.leave_out(f"images in {_folder(files)}, which is neither train nor val nor test", files)
        else:
            self._take_pairs(files, self.folders.maps[key], role or "train")

    def leave_out(self, why: str, files: Sequence[str]) -> None:
        """Notes files that are not used."""
        if files:
            self.left_out.setdefault(why, []).extend(files)

    def _take_pairs(self, files: Sequence[str], maps: Sequence[str], role: Role) -> None:
        _check_one_folder(self.root, files, "images for one split")
        listed = listed_splits(self.root, self.tree, files) if self.may_have_lists else None
        if listed is not None:
            self.leave_out(f"images that {listed.source} do not name", listed.unlisted)
            self.leave_out(f"entries of {listed.source} without an image", listed.missing)
            self.leave_out("repeated entries, of images that the list for test or val names too", listed.twice)
            files = [file for of_split in listed.splits.values() for file in of_split]
        matched = self._match(files, maps)
        for split, of_split in ({role: list(files)} if listed is None else listed.splits).items():
            self.splits[split] += of_split
        self.maps |= matched
        unused = sorted(set(maps) - set(matched.values()))
        if listed is None:
            self.leave_out(f"label maps in {_folder(maps)} that belong to no image", unused)

    def _match(self, files: Sequence[str], maps: Sequence[str]) -> dict[str, str]:
        """The map of each image."""
        matched = match(files, maps)
        _check_one_folder(self.root, _matching(files, maps), "label maps of the same images")
        missing = [file for file in files if file not in matched]
        if missing:
            raise UserError(
                f"{len(missing):,} of the {len(files):,} images in {self.root / _folder(files)} have no label map in "
                f"{_folder(maps)}, such as {', '.join(missing[:3])}: a map is a PNG of the same name, with one value for each "
                "pixel. Add the maps, or move these images away."
            )
        image_of: dict[str, str] = {}
        for image, label_map in matched.items():
            if image_of.setdefault(label_map, image) != image:
                raise UserError(
                    f"{image_of[label_map]} and {image} in {self.root} have the same label map, {label_map}: keep one of them, "
                    "or give each a map with its own name."
                )
        return matched

    def _take_without_maps(self, files: Sequence[str], role: Role | None, *, is_beside_a_pair: bool) -> None:
        """Images of test or for prediction are unlabelled; those of train and val lack their maps.

        A further folder beside a pair, such as ``depth``, holds neither.
        """
        folder = _folder(files)
        if is_beside_a_pair:
            self.leave_out(f"images in {folder}, which has no label maps", files)
        elif role in ("train", "val"):
            raise UserError(
                f"{self.root / folder} has no label maps: put them into a folder of the same name beside the other maps, or move "
                f"the images away. Layouts that are read: {WAYS}."
            )
        elif role is not None or any(means_images(name) for name in folder.split("/")):
            self.splits["unlabelled"] += files
        else:
            self.leave_out(f"images in {folder}, which has no label maps", files)


def _check_one_folder(root: Path, files: Sequence[str], what: str) -> None:
    found = sorted({_folder([file]) for file in files})
    if len(found) > 1:
        raise UserError(f"{root} holds several folders of {what}: {', '.join(found)}. Keep one of them.")


def _matching(files: Sequence[str], maps: Sequence[str]) -> list[str]:
    """The maps in those folders that hold maps of these images."""
    by_folder: dict[str, list[str]] = defaultdict(list)
    for label_map in maps:
        by_folder[_folder([label_map])].append(label_map)
    return [label_map for several in by_folder.values() if match(files, several) for label_map in several]


def _folder(files: Sequence[str]) -> str:
    """The folder of the first file, relative to the root."""
    return files[0].rpartition("/")[0] or "."


def _role(key: Key) -> Role | None:
    """The split that a key names."""
    return next((role for name in key if (role := split_of(name)) is not None), None)


def _refuse_unpaired(root: Path, folders: PairFolders) -> None:
    maps = sorted({_folder([file]) for files in folders.maps.values() for file in files})
    others = sorted({_folder([file]) for files in folders.images.values() for file in files})
    beside = f" beside {', '.join(others[:3])}" if others else ""
    raise UserError(
        f"{root} has label maps ({', '.join(maps[:3])}){beside}, but no images of the same names: put the images into a folder "
        "named images and give each the name of its map, or pass the folder above. Layouts that are read: "
        f"{WAYS}."
    )
