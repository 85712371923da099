"""COCO's annotation files: what is refused, and their categories."""

import json
from pathlib import Path
from typing import Any

import pytest

from lit_splitmask.annotations.coco import Categories, categories_of, read_file, read_ids
from lit_splitmask.errors import UserError

STRAY = {"image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2], "segmentation": [[1, 1, 2, 2, 1, 2]]}

NOT_COCO: list[tuple[Any, str]] = [
    ([1, 2], "no list 'images'"),
    ({"images": []}, "no list 'annotations'"),
    ({"images": [], "annotations": []}, "no list 'categories'"),
    ({"images": [{"id": 1, "file_name": "a"}]}, "lacks 'height', 'width'"),
    ({"images": [{"id": "x", "file_name": "a", "height": 1, "width": 1}]}, "distinct whole numbers"),
    ({"images": [{"id": 2**70, "file_name": "a", "height": 1, "width": 1}]}, "distinct whole numbers"),
    ({"images": [{"id": n, "file_name": "a", "height": 1, "width": 1} for n in (1, 2)]}, "lists the image a 2 times"),
    ({"annotations": [{**STRAY, "category_id": [1]}]}, r"category_id .* is \[1\], not a number"),
    ({"annotations": [{**STRAY, "iscrowd": "no"}]}, "iscrowd .* is 'no'"),
    ({"annotations": [{**STRAY, "area": ""}]}, "area .* is ''"),
    ({"annotations": [{**STRAY, "area": 10**400}]}, "area .* is 1000"),
    ({"images": [{"id": 1, "file_name": "a", "height": None, "width": 1}]}, "height None"),
    ({"annotations": [{"image_id": 1, "category_id": 1}]}, "entry 0 of 'annotations' lacks 'bbox'"),
    ({"annotations": [{"image_id": 1, "category_id": 1, "bbox": [1]}]}, "is not .left, top"),
    ({"annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 10**400, 1]}]}, "is not .left, top"),
]


@pytest.mark.parametrize(("stored", "message"), NOT_COCO)
def test_a_file_not_in_cocos_format_is_refused_with_what_is_missing(tmp_path: Path, stored: Any, message: str) -> None:
    if isinstance(stored, dict) and len(stored) == 1 and stored != {"images": []}:
        stored = {"images": [], "annotations": [], "categories": [], **stored}
    (tmp_path / "a.json").write_text(json.dumps(stored))
    with pytest.raises(UserError, match=message):
        read_file(tmp_path / "a.json")


@pytest.mark.parametrize("text", ["{nonsense", "", '{"images": 1' + "0" * 5000 + "}", "[" * 100_000])
def test_a_file_that_is_not_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match="not valid JSON"):
        read_file(tmp_path / "a.json")
    with pytest.raises(UserError, match="no ids of images"):
        read_ids(tmp_path / "a.json")
    with pytest.raises(UserError, match=r"no annotation file .*_annotations\.coco\.json"):
        read_file(tmp_path / "missing.json")


def stored(names: dict[int, str], used: list[int]) -> dict[str, Any]:
    return {
        "images": [],
        "categories": [{"id": number, "name": name} for number, name in names.items()],
        "annotations": [{"category_id": number} for number in used],
    }


def test_the_classes_are_the_categories_that_have_objects_in_any_file() -> None:
    names = {9: "tree", 0: "plants", 4: "leaf", 5: "leaf"}
    found = categories_of({Path("a"): stored(names, [4, 4]), Path("b"): stored(names, [9])})
    assert (found.ids, found.names) == ([4, 9], ["leaf", "tree"])
    assert found.unused == {"plants": 0, "leaf": 5}
    assert found.label_of() == {4: 0, 9: 1}
    assert categories_of({Path("a"): stored(names, [])}).ids == [0, 4, 5, 9]  # nothing is annotated yet


def test_files_that_name_a_category_differently_are_refused() -> None:
    files = {Path("a"): stored({1: "cat"}, []), Path("b"): stored({1: "dog"}, [])}
    with pytest.raises(UserError, match="disagree: category 1 is 'cat' in one and 'dog' in b"):
        categories_of(files)


def test_categories_take_the_order_of_other_names() -> None:
    categories = Categories([4, 9], ["leaf", "tree"], {"plants": 0})
    assert categories.for_names(["plants", "moss", "tree", "leaf"]).ids == [0, 10, 9, 4]
