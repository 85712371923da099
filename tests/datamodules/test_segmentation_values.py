"""What the values and colours of label maps mean: two classes of 0 and 255, tables, palettes, void; and what is refused."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scenes import COLOURS, draw_scene, save, scene_data, write_pairs, write_scenes

from lit_splitmask.datamodules import SegmentationFolder
from lit_splitmask.errors import UserError
from lit_splitmask.losses import IGNORED

TABLE = "ground:40,40,160\ndisc:220,60,50\nbar:60,170,80\nsky:0,0,0\n"


def opened(root: Path, **settings: Any) -> SegmentationFolder:
    data = scene_data(root, **settings)
    data.prepare_data()
    data.setup("fit")
    return data


def check_classes(data: SegmentationFolder, order: list[int], start: int = 0, split: str = "val") -> None:
    """Checks the classes in a split's maps; ``order`` has those of ground, disc, bar and void, ``start`` is the first scene."""
    images = data.split_images(split)
    assert images is not None
    for number in range(len(images)):  # type: ignore[arg-type]
        expected = np.array(order)[np.minimum(draw_scene(start + number)[1], 3)]
        assert (images[number]["map"].numpy() == expected).all()


def recode(path: Path, values: list[Any], mode: str | None = None) -> None:
    """Writes a map of a scene, by its number, with other values or colours of ground, disc, bar and void."""
    pixels = np.array(values, dtype=np.uint8)[np.minimum(draw_scene(int(path.stem))[1], 3)]
    Image.fromarray(pixels).convert(mode).save(path)


def recode_all(root: Path, values: list[Any], mode: str | None = None) -> None:
    for path in sorted((root / "annotations").rglob("*.png")):
        recode(path, values, mode)


# Masks of 0 and 255


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_masks_of_0_and_255_are_two_classes(mode: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_scenes(tmp_path / "cracks")
    recode_all(root, [0, 255, 255, 0], mode)
    with caplog.at_level(logging.INFO):
        data = opened(root)
    assert caplog.text.count("are read as two classes: 0 and 255") == 1
    assert (data.class_names, data.map_values) == (["0", "255"], [0, 255])
    check_classes(data, [0, 1, 1, 0], start=6)
    (root / "classes.txt").write_text("whole\ncrack\n")
    assert opened(root).class_names == ["whole", "crack"]
    (root / "classes.txt").write_text("whole\ncrack\nedge\n")
    with pytest.raises(UserError, match=r"values 0, 255, .*2 classes, but the number of class names is 3"):
        opened(root)


def test_masks_in_splits_are_two_classes(tmp_path: Path) -> None:
    for start, split in ((0, "train"), (10, "val")):
        write_pairs(
            tmp_path / "polyps",
            f"{split}/images/{{}}.png",
            f"{split}/masks/{{}}.png",
            start=start,
            values=[0, 255, 0, 0],
        )
    data = opened(tmp_path / "polyps")
    assert {name: len(split) for name, split in data.source.splits.items()} == {"train": 4, "val": 4}
    check_classes(data, [0, 1, 0, 0], start=10)


def test_255_stays_void_where_the_user_or_the_maps_say_so(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "cracks")
    recode_all(root, [0, 255, 255, 0])
    assert opened(root, void=255).class_names == ["0"]
    recode_all(root, [0, 1, 1, 255])
    assert opened(root).class_names == ["0", "1"]
    recode(root / "annotations/train/00.png", [0, 255, 255, 255])
    check_classes(opened(root), [0, 1, 1, IGNORED], start=6)


def test_maps_that_number_the_same_class_1_and_255_are_refused(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "cracks")
    recode_all(root, [0, 1, 1, 0])
    recode(root / "annotations/train/02.png", [0, 255, 255, 0])
    with pytest.raises(UserError, match=r"have only 0 and 255, such as .*02\.png.* number the classes differently"):
        opened(root)
    assert opened(root, void=255).num_classes == 2


def test_values_of_the_classes_can_be_given(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "greys")
    recode_all(root, [0, 127, 255, 0])
    with pytest.raises(UserError, match=r"2 different values, but .* pass --data\.values '\[0,127,255\]'"):
        opened(root)
    data = opened(root, values=[0, 127, 255])
    assert (data.class_names, data.void) == (["0", "127", "255"], 256)
    check_classes(data, [0, 1, 2, 0], start=6)
    data = opened(root, values=[127, 255], void=0)
    check_classes(data, [IGNORED, 0, 1, IGNORED], start=6)
    with pytest.raises(UserError, match=r"has the value 127, but the values of the classes are 0, 255 and void is 256"):
        opened(root, values=[0, 255])


@pytest.mark.parametrize(
    "settings", [{"values": []}, {"values": [1, 1]}, {"values": [-1]}, {"values": [0, 1], "void": 1},
                 {"values": [0, 1], "colours": "x"}]
)  # fmt: skip
def test_impossible_values_are_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError):
        scene_data(tmp_path, **settings)


def test_edges_of_interpolated_masks_are_not_classes(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "cracks")
    for path in sorted((root / "annotations").rglob("*.png")):
        recode(path, [0, 255, 255, 0])
        mask = Image.open(path)
        mask.resize((14, 10)).resize((56, 40), Image.Resampling.BICUBIC).save(path)
    with pytest.raises(UserError, match=r"come from interpolation or compression .*-threshold 50%"):
        opened(root)


def test_many_values_need_names_or_a_number(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "many")
    save(root / "annotations/train/00.png", (np.arange(40 * 56) % 200).reshape(40, 56).astype(np.uint8))
    with pytest.raises(UserError, match=r"200 different values.*set data\.num_classes"):
        opened(root)
    assert opened(root, num_classes=200).num_classes == 200


# Colours


def write_cvat(root: Path) -> Path:
    """A mask export of CVAT: colours, and a table of them."""
    write_pairs(root, "JPEGImages/{}.jpg", "SegmentationClass/{}.png", count=8, values=COLOURS)
    write_pairs(root, "JPEGImages/{}.jpg", "SegmentationObject/{}.png", count=0)
    (root / "labelmap.txt").write_text("# label:color_rgb:parts:actions\n" + TABLE.replace("\n", "::\n"))
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/default.txt").write_text("".join(f"{number:02d}\n" for number in range(8)))
    return root


def test_cvats_mask_export_is_read_by_its_table(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        data = opened(write_cvat(tmp_path / "cvat"))
    assert data.class_names == ["ground", "disc", "bar", "sky"]
    assert data.map_colours == COLOURS.tolist()
    assert {name: len(split) for name, split in data.source.splits.items()} == {"train": 7, "val": 1}
    check_classes(data, [0, 1, 2, 3], start=int(data.source.splits["val"].files[0][-6:-4]))
    assert "read by the colours in" in caplog.text
    assert "has no val: 1 of 8 training images are held out" in caplog.text


def test_maps_in_colours_need_a_table(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "scenes")
    recode_all(root, COLOURS.tolist())
    with pytest.raises(UserError, match=r"colour picture.* --data\.colours FILE.* 40,40,160"):
        opened(root)
    (tmp_path / "table.csv").write_text("name,r,g,b\n" + TABLE.replace(":", ","))
    data = opened(root, colours=str(tmp_path / "table.csv"))
    check_classes(data, [0, 1, 2, 3], start=6)
    (tmp_path / "table.csv").write_text("disc,220,60,50\nbar,60,170,80\nvoid,0,0,0\n")
    with pytest.raises(UserError, match=r"has the colour \(40, 40, 160\) in .*table\.csv does not name"):
        opened(root, colours=str(tmp_path / "table.csv"))


def test_a_class_called_void_has_no_label_unless_void_is_given(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_scenes(tmp_path / "scenes")
    recode_all(root, COLOURS.tolist())
    (root / "label_colors.txt").write_text("40 40 160 ground\n0 0 0 Void\n220 60 50 disc\n60 170 80 bar\n")
    data = opened(root)
    assert data.class_names == ["ground", "disc", "bar"]
    check_classes(data, [0, 1, 2, IGNORED], start=6)
    assert "The class Void of " in caplog.text
    assert opened(root, void=255).class_names == ["ground", "Void", "disc", "bar"]
    check_classes(opened(root, void=255), [0, 2, 3, 1], start=6)


@pytest.mark.parametrize("values", [[0, 1, 2, 3], [0, 1, 2, 255]])
def test_grey_maps_beside_a_table_hold_its_numbers(values: list[int], tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "scenes", values=values)
    (root / "class_dict.csv").write_text("name,r,g,b\n" + TABLE.replace(":", ","))
    data = opened(root)
    assert data.class_names == ["ground", "disc", "bar", "sky"]
    check_classes(data, [0, 1, 2, 3 if values[3] == 3 else IGNORED], start=6)


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_black_and_white_maps_are_read_by_a_table_of_these_colours(mode: str, tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "scenes")
    recode_all(root, [0, 255, 255, 0], mode)
    (root / "labelmap.txt").write_text("crack:255,255,255::\nbackground:0,0,0::\n")
    data = opened(root)
    assert data.class_names == ["crack", "background"]
    check_classes(data, [1, 0, 0, 1], start=6)
    recode(root / "annotations/train/00.png", [0, 255, 7, 0], "L")
    with pytest.raises(UserError, match=r"00\.png has the grey value 7, for which .*labelmap\.txt has neither"):
        opened(root)


def test_a_black_map_among_coloured_ones_is_read_by_colour(tmp_path: Path) -> None:
    root = write_cvat(tmp_path / "cvat")
    save(root / "SegmentationClass/00.png", np.zeros((40, 56), dtype=np.uint8))
    data = opened(root, val_share=0.0)
    images = data.split_images("train")
    assert images is not None
    assert images[0]["map"].unique().tolist() == [3]


# Palettes


def write_palettes(root: Path, palettes: list[list[int]]) -> Path:
    """Maps with palettes: the i-th file has ground, disc, bar and void at the indices of the i-th entry, in their colours."""
    for path, order in zip(sorted((root / "annotations").rglob("*.png")), palettes * 9, strict=False):
        classes = np.minimum(draw_scene(int(path.stem))[1], 3)
        picture = Image.fromarray(np.array(order, dtype=np.uint8)[classes])
        palette = np.zeros((256, 3), dtype=np.uint8)
        palette[order] = COLOURS
        picture.putpalette(palette.tobytes())
        picture.save(path)
    return root


def test_palettes_that_agree_are_read_by_value(tmp_path: Path) -> None:
    root = write_palettes(write_scenes(tmp_path / "scenes"), [[0, 1, 2, 255]])
    check_classes(opened(root), [0, 1, 2, IGNORED], start=6)


def test_palettes_that_differ_are_refused_or_read_by_colour(tmp_path: Path) -> None:
    root = write_palettes(write_scenes(tmp_path / "scenes"), [[0, 1, 2, 3], [1, 0, 2, 3]])
    with pytest.raises(
        UserError, match=r"palettes .* differ: the value 0 is \(40, 40, 160\) in .*--data\.colours FILE"
    ):
        opened(root)
    (tmp_path / "table.txt").write_text(TABLE)
    check_classes(opened(root, colours=str(tmp_path / "table.txt")), [0, 1, 2, 3], start=6)
    with pytest.raises(UserError, match="palettes"):
        opened(root)  # what was read by colour is read again


def test_classes_without_a_pixel_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_cvat(tmp_path / "cvat")
    with (root / "labelmap.txt").open("a") as file:
        file.write("never:9,9,9::\n")
    assert opened(root).num_classes == 5
    assert "No training map has a pixel of never." in caplog.text
