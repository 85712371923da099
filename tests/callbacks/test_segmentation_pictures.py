"""Pictures of predictions next to the ground truth, and predicted label maps on disk."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scenes import save, scene_data, segmenter, write_scenes
from tiny_runs import one_thread, tiny_trainer  # noqa: F401

from lit_splitmask.annotations.label_maps import read_map, to_values
from lit_splitmask.callbacks import LabelMapWriter, SegmentationPictures
from lit_splitmask.callbacks.drawing import TITLE_HEIGHT, class_colours
from lit_splitmask.callbacks.prediction_writers import encode_map, map_names
from lit_splitmask.callbacks.segmentation_pictures import draw_legend, paint
from lit_splitmask.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs


def test_colours_are_distinct_and_void_is_black() -> None:
    colours = class_colours(200)
    assert len({tuple(colour) for colour in colours.tolist()} | {(0, 0, 0)}) == 201
    painted = paint(torch.tensor([[0, -1], [2, 1]]), 3) * 255
    assert painted[:, 0, 1].tolist() == [0, 0, 0]
    assert painted[:, 1, 0].tolist() == colours[2].tolist()


def test_a_picture_has_one_row_per_image_and_a_legend(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "scenes")
    path = tmp_path / "out" / "pictures.png"
    trainer = tiny_trainer(tmp_path, callbacks=[SegmentationPictures(str(path), num_images=2)])
    trainer.fit(segmenter(), datamodule=scene_data(root))
    picture = np.asarray(Image.open(path))
    legend = draw_legend(["0", "1", "2"], 3 * 58).shape[1]
    assert picture.shape == (TITLE_HEIGHT + 2 * 42 + legend, 3 * 58, 3)
    truth = picture[TITLE_HEIGHT : TITLE_HEIGHT + 40, 58 : 58 + 56]
    classes = read_map(root / "annotations/val/06.png")
    for number in range(3):
        assert (truth[classes == number] == class_colours(3)[number]).all()
    assert (truth[classes == 255] == 0).all()


def test_other_modules_are_refused() -> None:
    from tiny_runs import pretrain_module

    with pytest.raises(UserError, match="works with Segment"):
        SegmentationPictures("x.png").draw(pretrain_module(), [])


@pytest.mark.parametrize(("void", "num_classes"), [(None, 3), (0, 3), (1, 3), (255, 256), (11, 300)])
def test_a_written_map_has_the_values_of_the_training_maps(void: int | None, num_classes: int, tmp_path: Path) -> None:
    classes = np.arange(num_classes).reshape(1, -1).repeat(2, axis=0)
    (tmp_path / "map.png").write_bytes(encode_map(classes, to_values(np.arange(num_classes), void).tolist()))
    expected = [value for value in range(num_classes + 1) if value != void][:num_classes]
    assert read_map(tmp_path / "map.png")[1].tolist() == expected


def test_images_that_differ_only_in_their_extension_have_different_maps() -> None:
    assert map_names(["a/x.jpg", "a/x.png", "b/x.jpg"]) == ["a/x.jpg.png", "a/x.png.png", "b/x.png"]


def test_maps_have_the_size_of_their_images_and_the_predicted_classes(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "scenes", {"train": 4, "val": 2, "test": 3}, values=[1, 2, 3, 0])
    generator = np.random.default_rng(0)
    save(root / "images/test/odd.png", generator.integers(0, 256, (13, 91, 3), dtype=np.uint8))
    save(root / "annotations/test/odd.png", np.ones((13, 91), dtype=np.uint8))
    module, data = segmenter(), scene_data(root, void=0, short_side=24)
    writer = LabelMapWriter(str(tmp_path / "maps"))
    trainer = tiny_trainer(tmp_path)
    trainer.fit(module, datamodule=data)
    found = tiny_trainer(tmp_path, callbacks=[writer]).predict(module, datamodule=data)
    names = [f"{number:02d}.png" for number in range(9)]
    assert sorted(path.name for path in (tmp_path / "maps").rglob("*.png")) == [*names, "odd.png"]
    for name, batch in zip(data.predict_paths, found or [], strict=True):
        written = read_map(tmp_path / "maps" / name)
        assert written.shape == read_map(root / name.replace("images", "annotations")).shape
        assert (written == batch["map"][0].numpy() + 1).all()
    with pytest.raises(UserError, match="already exists"):
        tiny_trainer(tmp_path, callbacks=[LabelMapWriter(str(tmp_path / "maps"))]).predict(module, datamodule=data)
