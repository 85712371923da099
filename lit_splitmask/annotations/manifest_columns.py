"""Which column of a CSV list of images is which: by any form of its name, otherwise by its values."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from lit_splitmask.annotations.csv_table import Table
from lit_splitmask.annotations.number_cells import are_numbers
from lit_splitmask.errors import UserError
from lit_splitmask.images.decode import IMAGE_EXTENSIONS
from lit_splitmask.images.folder_names import SPLITS, Role, split_of

_PATH = (
    "path", "filepath", "imagepath", "imgpath", "relativepath", "file", "filename", "imagefile", "imagefilename", "image",
    "img", "imagename", "imgname", "photo", "picture", "imageid", "imgid", "id",
)  # fmt: skip
_LABEL = (
    "label", "class", "target", "category", "labelname", "classname", "categoryname", "species", "labels", "classes",
    "labelid", "classid", "categoryid",
)  # fmt: skip
_SPLIT = ("set", "subset", "partition", "fold")
_GROUPS = re.compile(
    r"(patient|subject|site|case|person|participant|individual|animal|specimen|lesion|study|slide)s?(id|no|nr)?"
)
_LIKE_SPLITS = re.compile(
    r"(data)?(split|subset|partition|k?folds?)(type|name|id)?|set|usage|datasettype|train(test|val)"
)
_FLAG = re.compile(r"(is|in)[^a-z]*(?=[a-z])")  # of a column such as is_test
_TRUE, _FALSE = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")
_MANY = 3  # names in a message


@dataclass(frozen=True)
class Columns:
    """The columns of a CSV list of images, by their numbers.

    Attributes:
        path: The images.
        label: Their classes, or the numbers to predict; None without labels, or if ``one_hot`` has them.
        one_hot: Columns that stand for a class each.
        split: Their splits; None without, or if ``flags`` has them.
        flags: Columns that say for each image whether it is in a split.
        group: Their groups; None without.
        unused: The other columns.
        perhaps_label: Those of them that may be the label, if no column is.
        notes: What was found without the usual names.
        warnings: What may have another meaning.
    """

    path: int
    label: int | None = None
    one_hot: list[int] = field(default_factory=list)
    split: int | None = None
    flags: dict[int, Role] = field(default_factory=dict)
    group: int | None = None
    unused: list[int] = field(default_factory=list)
    perhaps_label: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def find_columns(table: Table, target: str | None = None) -> Columns:
    """Finds out which column is which.

    Args:
        table: The list.
        target: Name of the column of the numbers to predict, which is then the label; None for classes.

    Raises:
        UserError: No column names images, two columns may be meant, or there is no column of the target's name.
    """
    return _Finder(table).find(target)


class _Finder:
    def __init__(self, table: Table) -> None:
        self.table = table
        self.keys = [re.sub(r"[^a-z0-9]", "", name.casefold()) for name in table.header]
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.used: set[int] = set()

    def find(self, target: str | None) -> Columns:
        label = None if target is None else self.find_target(target)
        path = self.find_path()
        label = self.named(_LABEL, "label") if label is None else label
        split = self.find_split()
        group = self.named(("group",), "group")
        flags = {} if split is not None else self.find_flags()
        one_hot = [] if label is not None else self.find_one_hot()
        unused = [number for number, name in enumerate(self.table.header) if name and number not in self.used]
        self.report(unused, group, split is not None or bool(flags))
        perhaps = [] if label is not None or one_hot else [number for number in unused if self.may_be_label(number)]
        return Columns(path, label, one_hot, split, flags, group, unused, perhaps, self.notes, self.warnings)

    # By name

    def named(self, names: Sequence[str], role: str) -> int | None:
        """The column with one of these names, the first being the usual one; None if there is none.

        Raises:
            UserError: Several columns may be meant, and their values differ.
        """
        free = [number for number in range(len(self.keys)) if number not in self.used and any(self.table.cells(number))]
        found = [number for number in free if self.table.header[number] == names[0]]
        found = found or [number for number in free if self.keys[number] == names[0]]
        if not found:
            others = [number for number in free if self.keys[number] in names]
            found = sorted(others, key=lambda number: names.index(self.keys[number]))
        if not found:
            return None
        if role == "path":
            return self.use(found[0], role)
        self.check_agree(found, role)
        return self.use(next((number for number in found if not self.is_numeric(number)), found[0]), role)

    def find_target(self, name: str) -> int:
        """The column of this name; without an exact match, the one in another case.

        Raises:
            UserError: There is none, or there are two.
        """
        header = self.table.header
        found = [n for n, other in enumerate(header) if other == name and name]
        found = found or [n for n, other in enumerate(header) if other.casefold() == name.casefold() and name]
        if len(found) == 1:
            self.used.add(found[0])
            return found[0]
        problem = f"has {len(found) or 'no'} columns {name!r}" if name else "needs to know which column to predict"
        numeric = [number for number in range(len(header)) if are_numbers(self.table.cells(number))]
        listed = f"its columns of numbers are {self.names(numeric)}" if numeric else "it has no column of numbers"
        raise UserError(f"The manifest {self.table.path} {problem}: name one with --data.target COLUMN; {listed}.")

    def check_agree(self, columns: Sequence[int], role: str) -> None:
        """Checks that columns that may all have a role group the rows in the same way."""
        together = set(zip(*(self.table.cells(column) for column in columns), strict=True))
        if any(len(set(self.table.cells(column))) != len(together) for column in columns):
            raise UserError(
                f"The manifest {self.table.path} has several columns that may be the {role}, and their values differ: "
                f"{self.names(columns)}. Rename the right one to {role}, and the others to something else."
            )

    def use(self, column: int, role: str) -> int:
        self.used.add(column)
        if self.keys[column] != role:
            self.notes.append(f"The {role} is read from the column {self.table.header[column]!r}.")
        return column

    def is_numeric(self, column: int) -> bool:
        return all(re.fullmatch(r"-?\d+(\.0*)?", cell) for cell in self.table.cells(column) if cell)

    def names(self, columns: Sequence[int]) -> str:
        return ", ".join(self.table.header[column] for column in columns)

    # By values

    def find_path(self) -> int:
        column = self.named(_PATH, "path")
        if column is not None:
            return column
        is_header = not any(map(_is_image, self.table.header))
        if is_header and self.table.rows:
            like_images = [number for number in range(len(self.table.header)) if self.holds_images(number)]
            if len(like_images) == 1:
                return self.use(like_images[0], "path")
        header = ", ".join(self.table.header) or "nothing"
        hint = " Its first line looks like an image, not like a header: put the line path,label (or path) above it."
        raise UserError(
            f"The manifest {self.table.path} needs a header with the column path (and label, split, group if known) and one row "
            f"per image; it has {header} and {len(self.table.rows)} rows." + ("" if is_header else hint)
        )

    def holds_images(self, column: int) -> bool:
        cells = self.table.cells(column)
        return any(cells) and all(_is_image(cell) for cell in cells if cell)

    def find_split(self) -> int | None:
        """The column of the splits: by its name, otherwise by values that are all names of splits."""
        column = self.named(("split",), "split")
        if column is not None:
            return column
        free = [number for number in range(len(self.keys)) if number not in self.used]
        found = [number for number in free if self.is_split(number)]
        if not found:
            return None
        self.check_agree(found, "split")
        return self.use(found[0], "split")

    def is_split(self, column: int) -> bool:
        """Whether all values of a column name splits; without a usual name, train must be among them."""
        roles = {split_of(cell) for cell in self.table.cells(column)}
        return None not in roles and (self.keys[column] in _SPLIT or ("train" in roles and len(roles) > 1))

    def find_flags(self) -> dict[int, Role]:
        """Columns such as ``is_test`` with yes or no for every image."""
        flags: dict[int, Role] = {}
        for number, name in enumerate(self.table.header):
            match = _FLAG.match(name.casefold())
            role = split_of(name[match.end() :]) if match else None
            if role in SPLITS and number not in self.used and self.is_binary(number, empty=False):
                flags[number] = role
        for number in flags:
            self.use(number, "split")
        return flags

    def is_binary(self, column: int, *, empty: bool) -> bool:
        cells = {cell.casefold() for cell in self.table.cells(column)} - ({""} if empty else set())
        return bool(cells) and cells <= {*_TRUE, *_FALSE}

    def find_one_hot(self) -> list[int]:
        """The columns of 0 and 1, if there are several."""
        found = [
            number
            for number, name in enumerate(self.table.header)
            if name and number not in self.used and not _is_index(name) and self.is_binary(number, empty=True)
        ]
        found = [number for number in found if not _GROUPS.fullmatch(self.keys[number])]
        if len(found) < 2:
            return []
        self.used |= set(found)
        shown = self.names(found[:_MANY]) + (", …" if len(found) > _MANY else "")
        self.notes.append(f"The label is read from {len(found)} columns of 0 and 1: {shown}.")
        return found

    def may_be_label(self, column: int) -> bool:
        """Whether a column has a few values that recur, and a name that means nothing else."""
        cells = [cell for cell in self.table.cells(column) if cell]
        is_other = _GROUPS.fullmatch(self.keys[column]) or self.looks_like_split(column)
        return 2 <= len(set(cells)) <= len(cells) / 2 and not is_other

    # What is not used

    def report(self, unused: Sequence[int], group: int | None, has_split: bool) -> None:
        if unused:
            shown = [self.table.header[n] + ("" if any(self.table.cells(n)) else " (empty)") for n in unused]
            self.notes.append(f"Columns that are not used: {', '.join(shown)}.")
        for number in unused:
            name = self.table.header[number]
            if group is None and _GROUPS.fullmatch(self.keys[number]):
                self.warnings.append(
                    f"The column {name} is not used: call it group to keep all images with the same {name} in one split."
                )
            elif self.looks_like_split(number):
                why = "another column is the split" if has_split else self.why_no_split(number)
                self.warnings.append(
                    f"The column {name} looks like a split but is not used: {why}. To set the splits, give a column split with "
                    "the values train, val and test."
                )

    def why_no_split(self, column: int) -> str:
        others = sorted({cell for cell in self.table.cells(column) if split_of(cell) is None})
        if not others:
            return "its name is not split, and its values do not divide train from other images"
        shown = ", ".join(cell or "an empty cell" for cell in others[:_MANY]) + (", …" if len(others) > _MANY else "")
        return f"its values ({shown}) are not names of splits"

    def looks_like_split(self, column: int) -> bool:
        """Whether its name, or one of a few values, is that of a split."""
        cells = set(self.table.cells(column)) - {""}
        name = _FLAG.sub("", self.table.header[column].casefold(), count=1)
        by_name = bool(_LIKE_SPLITS.fullmatch(self.keys[column])) or split_of(name) is not None
        return bool(cells) and (by_name or (len(cells) <= 10 and any(split_of(cell) for cell in cells)))


def is_true(cell: str) -> bool:
    """Whether a cell of 0 and 1, or of yes and no, says yes."""
    return cell.casefold() in _TRUE


def _is_index(name: str) -> bool:
    return re.fullmatch(r"unnamed[:_ ]*\d*|index", name.casefold()) is not None


def _is_image(cell: str) -> bool:
    return PurePosixPath(cell.replace("\\", "/")).suffix.lower() in IMAGE_EXTENSIONS
