"""What a folder of images is, from all the evidence: the names of its folders, and what is in them and beside them."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from lit_splitmask.errors import UserError
from lit_splitmask.images.folder_names import SPLITS, Role, means_date, numbered_parts, same_name, split_in, split_of

LabelsMode = Literal["auto", "folders", "none", "several", "numbers"]
LayoutName = Literal["auto", "splits", "classes", "subfolders", "flat"]

_YEAR = re.compile("(?:19|20)[0-9][0-9]")

FEW_OUTSIDE = 0.1
"""Up to this share of a folder's images may be outside the folders that the layout uses; they are left out and counted."""


@dataclass(frozen=True)
class Content:
    """The content of one folder.

    Attributes:
        files: All its images, at any depth.
        num_loose: How many of them are not in a subfolder.
        folders: The folders in it that hold images, by name.
    """

    files: list[str]
    num_loose: int
    folders: Mapping[str, list[str]]

    @classmethod
    def of(cls, files: list[str], level: int) -> "Content":
        """The content of the folder at the given level of these paths."""
        folders: dict[str, list[str]] = defaultdict(list)
        num_loose = 0
        for file in files:
            parts = file.split("/", level + 1)
            if len(parts) > level + 1:
                folders[parts[level]].append(file)
            else:
                num_loose += 1
        return cls(files, num_loose, folders)

    @property
    def holds_few_loose(self) -> bool:
        """Whether there is hardly an image beside its folders."""
        return self.num_loose <= FEW_OUTSIDE * len(self.files)

    @property
    def holds_folders_only(self) -> bool:
        """Whether there are two or more folders in it, and hardly an image beside them."""
        return len(self.folders) >= 2 and self.holds_few_loose

    @property
    def only_folder(self) -> str | None:
        """The name of its only folder, if there is hardly an image beside it."""
        return next(iter(self.folders)) if len(self.folders) == 1 and self.holds_few_loose else None

    @property
    def has_splits(self) -> bool:
        """Whether folders in it are called train, and val or test."""
        roles = {split_of(name) for name in self.folders}
        return "train" in roles and len(roles & set(SPLITS)) >= 2


class Evidence:
    """The folders at the top of a folder of images.

    Args:
        root: The folder.
        files: Its images, as sorted POSIX paths relative to the root.

    Attributes:
        top: The content of the folder itself.
        roles: The purpose of its folders, for those whose names tell.
    """

    def __init__(self, root: Path, files: list[str]) -> None:
        self.root, self.files = root, files
        self.top = Content.of(files, 0)
        self.roles = {name: role for name in self.top.folders if (role := split_of(name)) is not None}
        if "train" not in self.roles.values():
            self.roles |= _named_after_a_set(set(self.top.folders) - self.roles.keys())

    @cached_property
    def inside(self) -> dict[str, Content]:
        """The content of each of the folders."""
        return {name: Content.of(files, 1) for name, files in self.top.folders.items()}

    @property
    def loose(self) -> list[str]:
        """The images that are not in any folder."""
        return [file for file in self.files if "/" not in file]

    @property
    def splits(self) -> dict[str, Role]:
        """The folders that are named after a split."""
        return {name: role for name, role in self.roles.items() if role in SPLITS}

    @property
    def aside(self) -> dict[str, Role]:
        """The folders that are named after images without labels."""
        return {name: role for name, role in self.roles.items() if role not in SPLITS}

    @property
    def others(self) -> list[str]:
        """The folders whose names do not tell their purpose."""
        return sorted(self.top.folders.keys() - self.roles.keys())

    @property
    def names_say_nothing(self) -> bool:
        """Whether all folders are named after dates, by a camera, or are numbered parts."""
        names = self.top.folders.keys() - self.aside.keys()
        return all(map(means_date, names)) or numbered_parts(names)

    def is_few(self, num_images: int) -> bool:
        """Whether so few images may be left out."""
        return num_images <= FEW_OUTSIDE * len(self.files)

    # Which reading

    def choose(self, mode: LabelsMode) -> LayoutName:
        """The reading that the evidence is for.

        Raises:
            UserError: Two readings are about equally likely, or another folder should be passed.
        """
        splits = set(self.splits.values())
        if "train" in splits and (len(splits) > 1 or not self.others):
            self._check_others_few(mode)
            return "splits"
        if "train" not in splits and (len(splits) > 1 or (splits and not self.others)):
            raise self._no_train(mode)
        self._check_not_too_high(mode)
        self._check_no_splits_inside(mode)
        if mode == "none":
            return "flat"
        if len(self.top.folders) - len(self.aside) < 2:
            self._check_not_aside()
            return "flat" if mode == "auto" else "classes"
        self._check_no_single_split()
        if mode == "auto":
            self._check_loose_few()
        self._check_not_the_same_inside()
        self._check_not_years()
        return "flat" if self.names_say_nothing and mode == "auto" else "classes"

    def _check_others_few(self, mode: LabelsMode) -> None:
        """Stops where many images are beside the split folders and would be left out."""
        num_others = sum(len(self.top.folders[name]) for name in self.others)
        if not self.is_few(num_others):
            beside = f"{some(self.others)} beside them hold {num_others:,} of {len(self.files):,} images"
        elif 2 * self.top.num_loose > len(self.files):
            beside = f"{self.top.num_loose:,} of {len(self.files):,} images are beside them"
        else:
            return
        used = ", ".join(sorted(self.splits))
        raise self._ambiguous(
            f"{used} look like splits, but {beside}",
            {
                "splits": f"use {used} only",
                **({} if mode == "none" else {"classes": "each of these folders is a class"}),
                "flat": "train on all images, without labels",
            },
        )

    def _no_train(self, mode: LabelsMode) -> UserError:
        roles = " and ".join(sorted(set(self.splits.values())))
        found = f"{self.root} holds folders for {roles} ({some(self.splits)}), but none for train"
        if self.others:
            found += f", unless {some(self.others)} is meant: call it train"
        else:
            found += ": pass the folder that holds train too"
        instead = "--layout flat to train on all images without labels"
        if mode != "none":
            instead = f"--layout classes if these are classes, or {instead}"
        return UserError(f"{found}. Or pass {instead}.")

    def _check_not_too_high(self, mode: LabelsMode) -> None:
        """Stops where the folder was passed some levels too high, as after unpacking an archive."""
        level, content, path = 0, self.top, self.root
        while (name := content.only_folder) is not None and split_of(name) not in SPLITS:
            level, content, path = level + 1, Content.of(content.folders[name], level + 1), path / name
        has_split = any(split_of(name) in SPLITS for name in content.folders)
        if level and (has_split or (len(content.folders) > 1 and mode != "none")):
            raise UserError(
                f"{self.root} holds a single folder with images, {path.relative_to(self.root).as_posix()}, and its content "
                f"({some(content.folders)}) would be ignored: pass {path} instead, or --layout flat to train on all images "
                "without labels."
            )

    def _check_no_splits_inside(self, mode: LabelsMode) -> None:
        """Stops where folders hold split folders, whose test images would be trained on."""
        holding = sorted(name for name, content in self.inside.items() if content.has_splits)
        if self.is_few(sum(len(self.top.folders[name]) for name in holding)):
            return
        path, inside = self.root / holding[0], some(self.inside[holding[0]].folders)
        way = f"pass {path}" if len(holding) == 1 else f"pass one of them, such as {path}"
        classes = "" if mode == "none" else "--layout classes to take these folders for classes, or "
        raise UserError(
            f"{self.root} holds {some(holding)}, with folders for splits inside ({inside}), whose test images would be trained "
            f"on: {way}, or move the splits to the top ({self.root}/train/{path.name}, {self.root}/test/{path.name}). Or pass "
            f"{classes}--layout flat to train on all images without labels."
        )

    def _check_not_aside(self) -> None:
        """Stops where the images with labels and those without are in folders side by side."""
        for name in self.others:
            if self.aside and self.inside[name].holds_folders_only:
                pool = ", ".join(str(self.root / other) for other in sorted(self.aside))
                raise UserError(
                    f"{self.root} holds {some(self.aside)} beside {name}, which holds folders "
                    f"({some(self.inside[name].folders)}): pass --data.root {self.root / name} --data.pool '[{pool}]', or "
                    "--layout flat to train on all images without labels."
                )

    def _check_no_single_split(self) -> None:
        """Stops where one folder is named after a split and the others are not, unless it may well be a class."""
        for name, role in self.splits.items():
            if any(other.lower().endswith(name.lower()) for other in self.others):  # such as valid and invalid
                continue
            # train may be a class among vehicles, but hardly beside one other, or with folders in it while the others have none
            is_like_others = any(self.inside[other].holds_folders_only for other in self.others)
            is_odd = self.inside[name].holds_folders_only and not is_like_others
            if role != "train" or len(self.others) == 1 or is_odd:
                holds = f" (it holds {some(self.inside[name].folders)})" if self.inside[name].folders else ""
                raise self._ambiguous(
                    f"{name} looks like a split{holds}, unlike {some(self.others)}",
                    {"classes": f"{name} is a class, as the others are", "flat": "no image has a label"},
                    "If it is a split, name the other folders train, val or test too, or move them into one, or pass the folder "
                    f"{self.root / name} alone.",
                )
        suspects = [name for name in self.top.folders if name not in self.roles and split_in(name) is not None]
        parts = [part for name in suspects if (part := split_in(name)) is not None]
        named = {role for role, _ in parts} | set(self.splits.values())
        if len(named & set(SPLITS)) > 1 and 2 * (len(suspects) + len(self.splits)) >= len(self.top.folders):
            raise self._ambiguous(
                f"{some([*suspects, *self.splits])} look like splits of several sets",
                {"classes": "each of these folders is a class", "flat": "no image has a label"},
                "If they are splits, put those of each set into a folder of their own, named train, val and test, and pass it.",
            )

    def _check_loose_few(self) -> None:
        """Stops where many images are beside class folders."""
        if not self.is_few(self.top.num_loose):
            raise self._ambiguous(
                f"{len(self.top.folders):,} folders hold images ({some(self.top.folders)}), but {self.top.num_loose:,} images "
                f"are beside them ({some(self.loose)})",
                {
                    "classes": "the folders are classes, the images beside them are left out",
                    "flat": "no image has a label",
                },
            )

    def _check_not_the_same_inside(self) -> None:
        """Stops where most folders hold the same folders, which may be the classes."""
        labelled = [content for name, content in self.inside.items() if name not in self.aside]
        inside = [{same_name(name) for name in content.folders} for content in labelled]
        count = Counter(name for names in inside for name in names)
        shared = sorted(name for name, times in count.items() if times > 1)
        num_shared = sum(count[name] for name in shared)
        holding = sum(bool(names) for names in inside)
        # a single name says what every class holds, as in CLASS/images/*.jpg
        if len(shared) < 2 or 2 * num_shared < count.total() or 2 * holding < len(inside):
            return
        raise self._ambiguous(
            f"the folders {some(self.top.folders)} hold the same folders ({some(shared)})",
            {
                "classes": f"the classes are {some(self.top.folders)}",
                "subfolders": f"the classes are {some(shared)}",
                "flat": "no image has a label",
            },
            f"If {some(self.top.folders)} are splits, name them train, val and test.",
        )

    def _check_not_years(self) -> None:
        """Stops where all folders are named after years, which may be classes or when the images were taken."""
        if all(map(_YEAR.fullmatch, self.top.folders.keys() - self.aside.keys())):
            raise self._ambiguous(
                f"its folders are years ({some(self.top.folders)})",
                {"classes": "each year is a class", "flat": "no image has a label"},
            )

    def _ambiguous(self, evidence: str, readings: Mapping[str, str], further: str = "") -> UserError:
        ways = "".join(f"\n  --layout {name}   {meaning}" for name, meaning in readings.items())
        last = f"\n{further}" if further else ""
        return UserError(
            f"{self.root} can be read in several ways: {evidence}. Say which one is meant, with one of these options:{ways}{last}"
        )


def _named_after_a_set(names: Collection[str]) -> dict[str, Role]:
    """The splits of one set that are named after it, such as ``cars_train`` and ``cars_test``; none if there are several sets."""
    groups: dict[tuple[str, ...], dict[str, Role]] = defaultdict(dict)
    for name in names:
        found = split_in(name)
        if found is not None:
            groups[found[1]][name] = found[0]
    complete = [roles for roles in groups.values() if "train" in roles.values() and len(set(roles.values())) > 1]
    return complete[0] if len(complete) == 1 else {}


def some(names: Collection[str]) -> str:
    """Up to four names."""
    listed = sorted(names)
    return ", ".join(listed[:4]) + (", …" if len(listed) > 4 else "")
