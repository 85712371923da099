"""What is known about each image and label map of a folder: read once, kept in a record, and checked."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lit_splitmask.annotations.colours import Colour, ColourTable, differing_palettes
from lit_splitmask.annotations.label_maps import BINARY, Coding, Kind, open_map
from lit_splitmask.annotations.pairs import Pairs
from lit_splitmask.errors import UserError
from lit_splitmask.files import write_json
from lit_splitmask.images.decode import DecodeError, open_image, orientation
from lit_splitmask.images.scan import examine, in_threads

VERSION = 5  # 1 hashed files, 2 knew no kinds and turns, 3 no hashes of maps, 4 hashed images of more than 8 bits as they look
MOST_UNREADABLE = 0.5
"""Share of the images that may be left out because they or their maps cannot be read."""


@dataclass(frozen=True)
class PairedFile:
    """What is known about an image or a map.

    Attributes:
        size, mtime_ns: To detect changes.
        shape: Height and width, upright; (0, 0) if it cannot be read.
        hash: Of the pixels; empty if it cannot be read.
        turn: EXIF orientation of an image, 1 if it is upright.
        kind: Kind of a map's pixels.
        values: Values of a map, sorted: those of a grey map as stored, of others numbers of the table's classes if there is a
            table; empty for an image.
        palette: Colours of a palette map, for each of its values; empty for others.
        problem: Why it cannot be read; empty if it can.
    """

    size: int
    mtime_ns: int
    shape: tuple[int, int]
    hash: str = ""
    turn: int = 1
    kind: Kind = "grey"
    values: tuple[int, ...] = ()
    palette: tuple[Colour, ...] = ()
    problem: str = ""


Record = Mapping[str, PairedFile]


def scan_pairs(root: Path, pairs: Pairs, path: Path, table: ColourTable | None = None) -> dict[str, PairedFile]:
    """Reads every image and every map once; the record at ``path`` keeps what was found, so that only new files are read again.

    Raises:
        UserError: A map cannot be one, differs in size from its image, or palettes disagree.
    """
    known = load_record(path, table) if path.exists() else {}
    maps = set(pairs.maps.values())
    files = sorted({file for split in pairs.splits.values() for file in split} | maps)
    found = in_threads(
        lambda file: _examine(root / file, file in maps, known.get(file), table), files, f"Reading {root.name}"
    )
    record = dict(zip(files, found, strict=True))
    if record != known:
        stored = {file: asdict(entry) for file, entry in record.items()}
        write_json(path, {"version": VERSION, "colours": _colours(table), "files": stored})
    _check_sizes(root, pairs, record)
    if table is None:
        _check_palettes(root, {file: record[file] for file in sorted(maps)})
    return record


def _examine(path: Path, is_map: bool, known: PairedFile | None, table: ColourTable | None) -> PairedFile:
    try:
        status = os.stat(path)
    except OSError as error:
        return PairedFile(0, 0, (0, 0), problem=f"The file {path} cannot be read ({error.strerror}).")
    when = (status.st_size, status.st_mtime_ns)
    if known is not None and (known.size, known.mtime_ns) == when:
        return known
    if not is_map:
        record, trouble = examine(path)
        turn = 1 if trouble else _turn(path)
        return PairedFile(*when, record.shape, hash=record.hash, turn=turn, problem=str(trouble) if trouble else "")
    try:
        stored = open_map(path)
    except DecodeError as error:
        return PairedFile(*when, (0, 0), problem=str(error))
    values = Coding(0, table=table).values_of(stored, path)
    found = np.flatnonzero(np.bincount(values.ravel())).tolist()
    colours = () if stored.palette is None or table is not None else stored.palette[found].tolist()
    palette = tuple((red, green, blue) for red, green, blue in colours)
    shape = (values.shape[0], values.shape[1])
    return PairedFile(*when, shape, stored.hash, kind=stored.kind, values=tuple(found), palette=palette)


def _turn(path: Path) -> int:
    with open_image(path) as image:
        return orientation(image)


def _check_sizes(root: Path, pairs: Pairs, record: Record) -> None:
    wrong = [
        (image, label_map)
        for image, label_map in pairs.maps.items()
        if record[image].shape != record[label_map].shape and not (record[image].problem or record[label_map].problem)
    ]
    if not wrong:
        return
    image, label_map = wrong[0]
    (height, width), (map_height, map_width) = record[image].shape, record[label_map].shape
    others = (
        f" ({len(wrong):,} of {len(pairs.maps):,} maps differ in size from their images.)" if len(wrong) > 1 else ""
    )
    if (map_height, map_width) == (width, height):
        why = (
            "it fits the image before its EXIF rotation. Rotate the map as well, or remove the orientation from "
            f"the image (`exiftool -n -Orientation=1 {root / image}`)"
            if record[image].turn > 4
            else "its sides are swapped. Rotate the map by 90 degrees"
        )
    else:
        why = "a map has a value for each pixel of its image. Make it again in that size, without interpolation"
    raise UserError(
        f"The label map {root / label_map} is {map_width} x {map_height} px, but its image is {width} x {height} px: "
        f"{why}.{others}"
    )


def turns_to_confirm(pairs: Pairs, record: Record) -> list[str]:
    """Images with an EXIF rotation, where no size tells whether the maps were drawn on the upright images; empty if one does."""
    turned = [image for image in pairs.maps if record[image].turn != 1]
    told = any(record[image].turn > 4 and record[image].shape[0] != record[image].shape[1] for image in turned)
    return [] if told else turned


def _check_palettes(root: Path, maps: Record) -> None:
    palettes = {
        file: dict(zip(entry.values, entry.palette, strict=True)) for file, entry in maps.items() if entry.palette
    }
    clash = differing_palettes(palettes)
    if clash is not None:
        value, one, other = clash
        raise UserError(
            f"The palettes of the label maps differ: the value {value} is {palettes[one][value]} in {root / one}, but "
            f"{palettes[other][value]} in {root / other}, so a value does not stand for one class. Say which colour is which "
            "class with --data.colours FILE (one class per line, as name:r,g,b): the maps are then read by colour."
        )


def readable(root: Path, pairs: Pairs, record: Record) -> tuple[Pairs, dict[str, str]]:
    """The pairs whose files can be read, and what is wrong with the others, by image.

    Raises:
        UserError: Too many cannot be read.
    """
    bad: dict[str, str] = {}
    for image in (image for split in pairs.splits.values() for image in split):
        label_map = pairs.maps.get(image)
        if record[image].problem:
            bad[image] = f"{record[image].problem} It is left out."
        elif label_map is not None and record[label_map].problem:
            bad[image] = f"{record[label_map].problem} {image}, which belongs to it, is left out too."
    total = sum(map(len, pairs.splits.values()))
    if len(bad) > MOST_UNREADABLE * total:
        raise UserError(
            f"{len(bad):,} of the {total:,} images in {root} or their label maps cannot be read. {next(iter(bad.values()))}"
        )
    splits = {name: [file for file in files if file not in bad] for name, files in pairs.splits.items()}
    maps = {image: label_map for image, label_map in pairs.maps.items() if image not in bad}
    return replace(pairs, splits={name: files for name, files in splits.items() if files}, maps=maps), bad


def is_binary(maps: Sequence[PairedFile]) -> bool:
    """Whether maps hold exactly the values 0 and 255: the most common mask of a single class."""
    return {value for entry in maps for value in entry.values} == set(BINARY)


def by_table(
    root: Path, record: Record, maps: Sequence[str], table: ColourTable, void: int | None
) -> tuple[Record, bool]:
    """The record with classes of the table in place of grey values, and whether grey maps are read by colour.

    They are, if some maps are in colours, or the table has the colours of all their values. Otherwise their values are the
    numbers of the table's classes.

    Raises:
        UserError: A grey value is neither a colour of the table nor a class's number.
    """
    grey = [file for file in maps if record[file].kind == "grey"]
    found = {value: file for file in grey for value in record[file].values}
    by_colour = len(grey) < len(maps) or found.keys() <= table.greys.keys()
    if not by_colour:
        unknown = [value for value in found if value >= len(table.names) and value != void]
    else:
        unknown = [value for value in found if value not in table.greys]
    if unknown:
        value = unknown[0]
        raise UserError(
            f"The label map {root / found[value]} has the grey value {value}, for which {table.source} has neither the colour "
            f"({value}, {value}, {value})"
            + (" nor a class of that number" if not by_colour else "")
            + ": add it there."
        )
    if not by_colour:
        return record, False
    numbers = {
        file: replace(record[file], values=tuple(sorted(table.greys[value] for value in record[file].values)))
        for file in grey
    }
    return {**record, **numbers}, True


def load_record(path: Path, table: ColourTable | None = None) -> dict[str, PairedFile]:
    """What :func:`scan_pairs` has kept; nothing of another version, and no maps that were read with another colour table.

    Raises:
        UserError: The record is damaged.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["version"] != VERSION:
            return {}
        files = {file: _from_json(entry) for file, entry in stored["files"].items()}
        same_colours = stored["colours"] == _colours(table)
        return {file: entry for file, entry in files.items() if same_colours or not entry.values}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"The record {path} is damaged ({type(error).__name__}: {error}). Delete it.") from error


def _colours(table: ColourTable | None) -> list[Any]:
    """A colour table as JSON values."""
    return [] if table is None else [[name, *colour] for name, colour in zip(table.names, table.colours, strict=True)]


def _from_json(entry: Mapping[str, Any]) -> PairedFile:
    height, width = entry["shape"]
    palette = tuple((red, green, blue) for red, green, blue in entry["palette"])
    return PairedFile(**{**entry, "shape": (height, width), "values": tuple(entry["values"]), "palette": palette})
