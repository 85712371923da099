"""What ``predict`` writes: classes as CSV, label maps as PNG, detections as COCO results."""

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from PIL import Image

from lit_splitmask.annotations import rle
from lit_splitmask.annotations.label_maps import to_values
from lit_splitmask.callbacks.drawing import class_colours
from lit_splitmask.distributed import gather_objects, sum_over_processes
from lit_splitmask.errors import UserError
from lit_splitmask.files import write_atomically
from lit_splitmask.modules.average_precision import xywh
from lit_splitmask.modules.segment import Segment


class PredictionWriter(BasePredictionWriter):
    """Writes one CSV row for each image: its path, the predicted class, and the probability of every class.

    Args:
        path: The CSV file; it must not exist yet.
    """

    def __init__(self, path: str = "predictions.csv") -> None:
        super().__init__(write_interval="epoch")
        self.path = Path(path)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks that no file would be overwritten, before anything is predicted.

        Raises:
            UserError: The file exists.
        """
        if stage == "predict":
            _refuse_to_overwrite(self.path)

    def write_on_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule, predictions: Sequence[Any], batch_indices: Sequence[Any]
    ) -> None:
        names: list[str] = pl_module.class_names  # type: ignore[assignment]
        paths: list[str] = trainer.datamodule.predict_paths  # type: ignore[attr-defined]
        own = [
            (index, row)
            for batch in predictions
            for index, row in zip(batch["index"].tolist(), batch["probabilities"].tolist(), strict=True)
        ]
        rows = sorted(gather_objects(own))
        if not trainer.is_global_zero:
            return
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["path", "predicted", *names])
        for index, row in rows:
            best = max(range(len(row)), key=row.__getitem__)
            writer.writerow([paths[index], names[best], *(f"{p:.6f}" for p in row)])
        write_atomically(self.path, table.getvalue().encode())
        pl_module.print(f"Wrote {self.path}.")


class LabelMapWriter(BasePredictionWriter):
    """Writes one PNG for each image, with the image's size on disk and the values that the training maps use.

    The PNG has a palette, so that it can be viewed, or 16 bits where the values need them. The folder mirrors that of the
    images.

    Args:
        path: A folder that does not exist yet, or is empty.
    """

    def __init__(self, path: str = "predictions") -> None:
        super().__init__(write_interval="batch")
        self.path = Path(path)
        self._num_written = 0
        self._names: list[str] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks that no file would be overwritten, before anything is predicted.

        Raises:
            UserError: The folder holds files, or is one.
        """
        if stage != "predict":
            return
        if self.path.is_file() or (self.path.is_dir() and any(self.path.iterdir())):
            raise UserError(
                f"{self.path} exists already: move it away, or give another folder with --predictions.path DIR."
            )
        trainer.strategy.barrier("predictions")  # no process writes before all have checked

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._num_written = 0
        self._names = map_names(trainer.datamodule.predict_paths)  # type: ignore[attr-defined]

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        assert isinstance(pl_module, Segment)
        for classes, index in zip(prediction["map"].cpu().numpy(), prediction["index"].tolist(), strict=True):
            data = encode_map(classes, pl_module.void, pl_module.num_classes)
            write_atomically(self.path / self._names[index], data)
            self._num_written += 1

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        written = torch.tensor(self._num_written, device=pl_module.device)
        sum_over_processes(written)
        pl_module.print(f"Wrote {int(written):,} label maps to {self.path}/.")


class CocoResults(BasePredictionWriter):
    """Writes detections as COCO results: the original ids of images and categories, boxes, scores, masks as run lengths.

    Masks stand beside their boxes, as detectors usually write them. pycocotools then uses the area of the box, not of the mask,
    when it evaluates masks by size; remove ``bbox`` before that, as is common practice.

    Images without annotations have no ids of their own: a second file, ``<name>_images.json``, maps ids to file names.

    Args:
        path: The JSON file; it must not exist yet.
    """

    def __init__(self, path: str = "results.json") -> None:
        super().__init__(write_interval="epoch")
        self.path = Path(path)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks that no file would be overwritten, before anything is predicted.

        Raises:
            UserError: The file exists.
        """
        if stage == "predict":
            _refuse_to_overwrite(self.path)

    def write_on_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule, predictions: Sequence[Any], batch_indices: Sequence[Any]
    ) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        image_ids = data.predict_image_ids
        category_ids: Any = data.category_ids or pl_module.category_ids
        results = gather_objects(coco_results(predictions, image_ids, category_ids))
        results.sort(key=lambda result: result["image_id"])  # a stable sort: an image's detections keep their order
        if not trainer.is_global_zero:
            return
        write_atomically(self.path, json.dumps(results).encode())
        if not data.is_annotated:
            names = [
                {"id": number, "file_name": name.removeprefix("./")}
                for number, name in zip(image_ids, data.predict_paths, strict=True)
            ]
            write_atomically(self.path.with_name(f"{self.path.stem}_images.json"), json.dumps(names).encode())
        pl_module.print(f"Wrote {len(results):,} detections to {self.path}.")


def _refuse_to_overwrite(path: Path) -> None:
    if path.exists():
        raise UserError(f"{path} exists already: move it away, or give another file with --predictions.path FILE.")


def map_names(paths: Sequence[str]) -> list[str]:
    """File names for the maps: those of the images with ``.png``, keeping the image's own extension where two would collide."""
    plain = [str(PurePosixPath(path).with_suffix(".png")) for path in paths]
    count = Counter(plain)
    return [name if count[name] == 1 else f"{path}.png" for name, path in zip(plain, paths, strict=True)]


def encode_map(classes: np.ndarray, void: int | None, num_classes: int) -> bytes:
    """A PNG of class indices (H, W), written as the values of the training maps, which skip ``void``.

    Args:
        classes: All in [0, num_classes).
        void: The value that no class has; None where values are class indices.
        num_classes: Decides between a palette and 16 bits.
    """
    values = to_values(np.arange(num_classes), void)
    written = values[classes]
    if values.max() > 255:
        picture = Image.fromarray(written.astype(np.uint16))
    else:
        picture = Image.fromarray(written.astype(np.uint8)).convert("L")
        palette = np.zeros((256, 3), dtype=np.uint8)
        palette[values] = class_colours(num_classes)
        picture.putpalette(palette.tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def coco_results(
    predictions: Sequence[dict[str, Any]], image_ids: Sequence[int], category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """Outputs of ``Detect.predict_step`` as a list of COCO results."""
    results = []
    for batch in predictions:
        for index, found in zip(batch["index"].tolist(), batch["found"], strict=True):
            boxes, masks = xywh(found["boxes"]).tolist(), found.get("masks")
            detections = zip(found["labels"].tolist(), found["scores"].tolist(), strict=True)
            for number, (label, score) in enumerate(detections):
                result = {"image_id": image_ids[index], "category_id": category_ids[label]}
                result |= {"bbox": boxes[number], "score": score}
                if masks is not None:
                    result["segmentation"] = rle.as_json(masks[number])
                results.append(result)
    return results
