"""Which folders of a tree hold images and which hold their label maps: by their names, their files' names, and their content."""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path

import numpy as np

from lit_splitmask.annotations.pair_names import has_map_name, match, stem
from lit_splitmask.images.decode import open_image
from lit_splitmask.images.folder_names import means_images, means_masks, split_in, split_of, split_of_masks
from lit_splitmask.images.tree import Tree

Key = tuple[str, ...]
"""The folders of a file without those that say image or map, splits by their role: equal for an image and its map."""

LEAST_MATCHED = 0.5
"""Share of the images that must have a map, or of the maps that must have an image, for two folders to belong together."""

_NOT_READ = {
    "segmentationobject", "segmentationobjectpng", "segmentationobjectvisualization", "segmentationclassvisualization",
    "maskshuman", "instancemasks", "instances",
}  # fmt: skip
"""Folders, in letters alone, of instances or of pictures of maps, which programs write beside the maps of classes."""

_NNUNET = {
    "imagestr": ("train", False),
    "labelstr": ("train", True),
    "imagests": ("test", False),
    "labelsts": ("test", True),
}
_MAP_WORDS = {
    "mask", "masks", "label", "labels", "annotation", "annotations", "annot", "gt", "truth", "groundtruth", "segmentation",
    "segmentations", "labeled", "labelled",
}  # fmt: skip
_IMAGE_WORDS = {
    "image",
    "images",
    "img",
    "imgs",
    "photo",
    "photos",
    "rgb",
    "raw",
    "original",
    "originals",
    "input",
    "inputs",
}

_SAMPLES = 5  # files of a folder that are opened
_WINDOW = 20  # files of a folder whose names are looked at
_SIDE = 64  # pixels that are looked at, in each direction
_FEW_SIBLINGS, _MANY_SIBLINGS = 4, 16  # folders that are compared by content, and by names


@dataclass
class PairFolders:
    """The images and the maps of a tree, by what their folders have in common; paths are relative to the root.

    Attributes:
        root: The folder.
        images: Images by key.
        maps: Maps by key.
        not_read: Instance maps and pictures of maps.
    """

    root: Path
    images: dict[Key, list[str]] = field(default_factory=lambda: defaultdict(list))
    maps: dict[Key, list[str]] = field(default_factory=lambda: defaultdict(list))
    not_read: list[str] = field(default_factory=list)

    @classmethod
    def sort(cls, tree: Tree) -> "PairFolders":
        """Sorts the images of a tree into images and maps."""
        folders = cls(tree.root)
        folders._sort_by_names(tree)
        folders._find_maps_beside_their_images()
        folders._find_images_of_named_maps()
        if not folders.maps:
            folders._find_siblings()
        return folders

    def pairs(self) -> list[Key]:
        """The keys under which images and maps belong together."""
        return [key for key in self.maps if self.is_pair(key)]

    def is_pair(self, key: Key) -> bool:
        """Whether enough images and maps belong together, and the maps are not photos of one class among others."""
        images, maps = self.images.get(key, []), self.maps.get(key, [])
        return _belong(images, maps) and not (self._siblings(key) and self.look_like_photos(maps))

    def are_maps_of_unknown_images(self, key: Key) -> bool:
        """Whether files in a folder named for maps look like maps, and there are images that they may be for."""
        if not self.look_like_maps(self.maps[key]):
            return False
        if self.images.get(key) and not self._siblings(key):
            return True
        some = [self.images[other] for other in list(self.images)[:_FEW_SIBLINGS]]
        return any(self.look_like_photos(files) for files in some)

    def look_like_photos(self, files: Sequence[str]) -> bool:
        """Whether most of a few files have as many colours as photos have."""
        return self._most(files, _looks_like_photo)

    def look_like_maps(self, files: Sequence[str]) -> bool:
        """Whether most of a few files have as few values or colours as label maps have."""
        return self._most(files, _looks_like_map)

    def _most(self, files: Sequence[str], test: Callable[[np.ndarray], bool]) -> bool:
        samples = [pixels for file in _some(files) if (pixels := _glimpse(self.root / file)) is not None]
        return bool(samples) and 2 * sum(test(pixels) for pixels in samples) > len(samples)

    def _siblings(self, key: Key) -> bool:
        """Whether there are folders of images beside a pair, other than splits."""
        return any(
            split_of(other[index]) is None
            for other in self.images
            for index in range(len(other))
            if len(other) == len(key) + 1 and _without(other, index) == key
        )

    def _sort_by_names(self, tree: Tree) -> None:
        kinds: dict[str, tuple[Key, bool] | None] = {}
        for file in tree.images:
            folder = file.rpartition("/")[0]
            if folder not in kinds:
                kinds[folder] = _kind(folder)
            kind = kinds[folder]
            if kind is None:
                self.not_read.append(file)
            else:
                (self.maps if kind[1] else self.images)[kind[0]].append(file)

    def _find_maps_beside_their_images(self) -> None:
        """Finds maps in the folder of their images: ``a.jpg`` with ``a_mask.png``, or ``a.jpg`` with ``a.png``."""
        for key, files in list(self.images.items()):
            if any(map(has_map_name, _windows(files))):
                maps = [file for file in files if has_map_name(file)]
            else:
                maps = _second_formats(files)
            chosen = set(maps)
            images = [file for file in files if file not in chosen]
            if maps and images and _belong(images, maps) and self.look_like_maps(maps):
                self.images[key] = images
                self.maps[key] += maps

    def _find_images_of_named_maps(self) -> None:
        """Finds the images of maps whose folder says so, in a folder of any name: ``original`` beside ``ground_truth``."""
        for key in list(self.maps):
            maps = self.maps[key]
            if _belong(self.images.get(key, []), maps):
                continue
            near = [other for other in self.images if _is_near(other, key) and _belong(self.images[other], maps)]
            if len(near) == 1 and self.look_like_maps(maps) and not self.look_like_maps(self.images[near[0]]):
                self._join(near[0], key)

    def _join(self, images: Key, maps: Key) -> None:
        """Puts images and maps under one key, which names the split if one of the two does."""
        key = _named_by_split(images)
        of_maps = self.maps.pop(maps) if maps in self.maps else self.images.pop(maps)
        of_images = self.images.pop(images)
        self.maps[key] += of_maps
        self.images[key] += of_images

    def _find_siblings(self) -> None:
        """Finds images and maps in two folders beside each other, of any names."""
        for (index, _), keys in _groups(list(self.images)).items():
            for a, b in permutations(keys, 2):
                images, maps = self.images.get(a), self.images.get(b)
                if images and maps and self._are_siblings(a[index], images, b[index], maps, len(keys)):
                    self._join(a, b)

    def _are_siblings(
        self, name: str, images: Sequence[str], map_name: str, maps: Sequence[str], num_folders: int
    ) -> bool:
        """Whether two folders hold images and their maps: as their names say, those of the files, or the content."""
        by_name = _says_maps_of(map_name, name)
        by_files = has_map_name(maps[0]) and all(map(has_map_name, maps)) and not all(map(has_map_name, images))
        if not (by_name or by_files or num_folders <= _FEW_SIBLINGS):
            return False
        if not self.look_like_maps(maps) or not (by_name or by_files or self.look_like_photos(images)):
            return False
        return _belong(images, maps)


def _kind(folder: str) -> tuple[Key, bool] | None:
    """The key of a folder, and whether it holds maps; None for a folder that is not read."""
    parts: list[str] = []
    is_map = False
    for name in folder.split("/") if folder else []:
        letters = re.sub(r"[^a-z]", "", name.lower())
        if letters in _NOT_READ:
            return None
        if letters in _NNUNET:
            split, of_maps = _NNUNET[letters]
            is_map |= of_maps
            parts.append(split)
            continue
        split_of_map = split_of_masks(name)
        if means_masks(name) or split_of_map is not None:
            is_map = True
            parts += [split_of_map] if split_of_map is not None else []
        elif not means_images(name):
            parts.append(split_of(name) or name)
    return tuple(parts), is_map


def _without(key: Key, index: int) -> Key:
    return key[:index] + key[index + 1 :]


def _belong(images: Sequence[str], maps: Sequence[str]) -> bool:
    """Whether enough of the names agree."""
    if not images or not maps:
        return False
    found = match(images, maps)
    return len(found) >= LEAST_MATCHED * len(images) or len(set(found.values())) >= LEAST_MATCHED * len(maps)


def _second_formats(files: Sequence[str]) -> list[str]:
    """PNG files beside files of the same names in another format."""
    if len({file[-4:].lower() for file in files}) < 2:
        return []
    extensions: dict[str, list[str]] = defaultdict(list)
    for file in files:
        extensions[stem(file)].append(file)
    found = [
        [file for file in several if file.lower().endswith(".png")]
        for several in extensions.values()
        if len(several) == 2
    ]
    return [one[0] for one in found if len(one) == 1]


def _groups(keys: Sequence[Key]) -> dict[tuple[int, Key], list[Key]]:
    """Keys that differ in one name, which is not a split; few enough to be compared with each other."""
    groups: dict[tuple[int, Key], list[Key]] = defaultdict(list)
    for key in keys:
        for index, name in enumerate(key):
            if split_of(name) is None:
                groups[index, _without(key, index)].append(key)
    return {place: sorted(found) for place, found in groups.items() if 2 <= len(found) <= _MANY_SIBLINGS}


def _words(name: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())


def _says_maps_of(name: str, images: str) -> bool:
    """Whether a folder's name is that of another with a word for maps, such as ``crack_masks`` beside ``crack_images``."""
    words, others = _words(name), _words(images)
    if not set(words) & _MAP_WORDS or set(others) & _MAP_WORDS:
        return False
    return [word for word in words if word not in _MAP_WORDS] == [word for word in others if word not in _IMAGE_WORDS]


def _named_by_split(key: Key) -> Key:
    """A key with the split that is a part of a name in place of that name."""
    return tuple(name if (found := split_in(name)) is None else found[0] for name in key)


def _is_near(images: Key, maps: Key) -> bool:
    """Whether images are beside maps of a key: in a folder of another name, which may hold that of the split."""
    beside = any(_without(images, index) == maps for index in range(len(images)))
    return beside or _named_by_split(images) == maps


def _windows(files: Sequence[str]) -> Sequence[str]:
    """Files from the start, the middle and the end of a sorted folder, some of which are maps if a third of all are."""
    middle = len(files) // 2
    return [*files[:_WINDOW], *files[middle : middle + _WINDOW], *files[-_WINDOW:]]


def _some(files: Sequence[str]) -> Sequence[str]:
    """A few evenly spaced files."""
    return files[:: max(1, len(files) // _SAMPLES)][:_SAMPLES]


def _glimpse(path: Path) -> np.ndarray | None:
    """Some pixels of an image, (N,) or (N, C); None if it cannot be read."""
    try:
        with open_image(path) as image:
            image.draft(None, (2 * _SIDE, 2 * _SIDE))
            pixels = np.asarray(image)
    except Exception:  # Pillow's plugins raise nearly anything on damaged files
        return None
    if pixels.ndim not in (2, 3):
        return None
    steps = [max(1, length // _SIDE) for length in pixels.shape[:2]]
    few = pixels[:: steps[0], :: steps[1]]
    return few.reshape(-1) if few.ndim == 2 else few.reshape(-1, few.shape[2])


def _num_colours(pixels: np.ndarray) -> int:
    return len(np.unique(pixels, axis=0))


def _looks_like_map(pixels: np.ndarray) -> bool:
    return _num_colours(pixels) <= 32


def _looks_like_photo(pixels: np.ndarray) -> bool:
    most = 96 if pixels.ndim == 1 else 256
    return _num_colours(pixels) > min(most, len(pixels) // 4)
