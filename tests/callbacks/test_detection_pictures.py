"""Pictures of detections next to the ground truth."""

from pathlib import Path

import numpy as np
import pytest
import torch
from detectors import coco, detection_set, detector
from PIL import Image
from tiny_runs import one_thread, tiny_trainer  # noqa: F401

from lit_splitmask.callbacks import DetectionPictures
from lit_splitmask.callbacks.detection_pictures import draw_objects
from lit_splitmask.callbacks.drawing import bright_colour

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return detection_set(tmp_path_factory.mktemp("detect") / "set")


def test_pictures_show_ground_truth_and_predictions_side_by_side(root: Path, tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, callbacks=[DetectionPictures(str(tmp_path), num_images=3)], limit_val_batches=0)
    trainer.fit(detector(), datamodule=coco(root, steps=1))
    picture = Image.open(tmp_path / "detections.png")
    assert picture.width > 2 * 320
    assert picture.height > 3 * 320


def test_a_mask_is_drawn_in_the_colour_of_its_class_within_its_box() -> None:
    mask = torch.zeros(1, 40, 50, dtype=torch.bool)
    mask[0, 10:20, 10:30] = True
    objects = {"boxes": torch.tensor([[10.0, 10, 30, 20]]), "labels": torch.tensor([1]), "masks": mask}
    drawn = np.asarray(draw_objects(torch.zeros(3, 40, 50, dtype=torch.uint8), objects, ["a", "b"])).astype(int)
    assert drawn[10, 12].tolist() == list(bright_colour(1))
    assert np.abs(drawn[15, 25] - 0.45 * np.array(bright_colour(1))).max() <= 1
    assert drawn[30, 40].tolist() == [0, 0, 0]
    assert len({bright_colour(label) for label in range(80)}) == 80
