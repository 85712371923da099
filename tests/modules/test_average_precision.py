"""Average precision: as pycocotools computes it, and the same on two processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from coco_sets import evaluate, load
from detectors import NearGroundTruth, detection_set, near_ground_truth, validate_and_predict
from tiny_runs import one_thread, tiny_trainer  # noqa: F401

from lit_splitmask.callbacks import CocoResults
from lit_splitmask.errors import UserError
from lit_splitmask.modules.average_precision import CocoAP

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return detection_set(tmp_path_factory.mktemp("detect") / "set")


def test_ap_equals_that_of_pycocotools_on_the_written_results(root: Path, tmp_path: Path) -> None:
    module, data = near_ground_truth(root)
    trainer = tiny_trainer(tmp_path, callbacks=[CocoResults(str(tmp_path / "results.json"))])
    logged = trainer.validate(module, datamodule=data, verbose=False)[0]
    trainer.predict(module, datamodule=data)
    known = {image["id"] for image in load(root, "val")["images"]}
    written = json.loads((tmp_path / "results.json").read_text())
    results = [one for one in written if one["image_id"] in known]
    assert 0 < len(results) < len(written)  # those on training images have other ids
    assert {one["category_id"] for one in results} <= {0, 3, 90}
    for kind, name in (("bbox", "box"), ("segm", "mask")):
        expected = evaluate(root / "annotations" / "instances_val.json", results, kind)
        assert 0.1 < expected[0] < 0.9
        for number, key in ((0, "AP"), (1, "AP50"), (2, "AP75"), (8, "AR100")):
            assert logged[f"val/{name}/{key}"] == pytest.approx(expected[number], abs=1e-6)
        alone = [{key: value for key, value in one.items() if kind == "bbox" or key != "bbox"} for one in results]
        by_size = evaluate(root / "annotations" / "instances_val.json", alone, kind)[3:6]
        for value, key in zip(by_size, ("AP_small", "AP_medium", "AP_large"), strict=True):
            assert logged.get(f"val/{name}/{key}", -1.0) == pytest.approx(value, abs=1e-6)
    with pytest.raises(UserError, match="already exists"):
        trainer.predict(module, datamodule=data)


def test_thresholds_equal_those_of_pycocotools_to_the_last_digit() -> None:
    from pycocotools.cocoeval import Params

    scores, own = CocoAP(), Params()
    assert scores.iou_thresholds == own.iouThrs.tolist()
    assert scores.rec_thresholds == own.recThrs.tolist()


def test_the_mean_over_the_classes_is_the_ap(root: Path) -> None:
    data = near_ground_truth(root)[1]
    images, scores = data.eval_images(data.source.predict), CocoAP()
    items = [images[index] for index in range(len(images))]
    scores.update(
        [NearGroundTruth.perturbed(item) for item in items], [item["truth"] for item in items], list(range(len(items)))
    )
    summary = scores.summary(data.class_names)
    per_class = [value for name, value in summary.items() if name.startswith("mask/AP/")]
    assert len(per_class) == 3
    assert np.mean(per_class) == pytest.approx(summary["mask/AP"], abs=1e-6)


PROCESSES = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import torch
from detectors import validate_and_predict
from tiny_runs import end_together

torch.set_num_threads(1)
root = Path(sys.argv[1])
validate_and_predict(root, root.parent / "two", strategy="ddp", devices=2)
end_together()
"""


def test_two_processes_train_one_detector_with_the_ap_and_results_of_one_process(root: Path) -> None:
    script, folder = root.parent / "script.py", root.parent
    script.write_text(PROCESSES)
    done = subprocess.run(
        [sys.executable, str(script), str(root), str(Path(__file__).parents[1])],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    validate_and_predict(root, folder / "one")
    one, first, second = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("one/rank0", "two/rank0", "two/rank1")
    )
    assert one["scores"]["val/box/AP"] > 0.1
    assert first == second
    assert first["scores"] == pytest.approx(one["scores"], abs=1e-7)
    assert first["steps"] == one["steps"] == 2
    assert first["weights"] != one["weights"]  # the sampled regions differ
    results = [json.loads((folder / name / "results.json").read_text()) for name in ("one", "two")]
    assert results[0] == results[1]
