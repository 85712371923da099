"""Write predictions: classes and numbers as CSV, label maps as PNG, detections as COCO results."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from PIL import Image

from lit_splitmask.annotations import rle
from lit_splitmask.annotations.label_maps import BINARY
from lit_splitmask.callbacks.drawing import class_colours
from lit_splitmask.callbacks.prediction_output import PredictionOutput
from lit_splitmask.contract import TrainingData, training_data
from lit_splitmask.distributed import gather_objects, sum_over_processes
from lit_splitmask.errors import UserError
from lit_splitmask.files import write_atomically, write_json
from lit_splitmask.modules.average_precision import xywh
from lit_splitmask.modules.segment import Segment


class PredictionWriter(PredictionOutput):
    """Writes one CSV row per image: its path, the predicted class, the probability of every class, and an error.

    An image that cannot be read has a row too: empty probabilities, and the reason as its error.

    Args:
        path: The CSV file; it must not exist yet.
        numbered: Whether a path that is taken gets a number, instead of being refused.

    Example:
        >>> PredictionWriter("runs/mine/classes.csv").path.name
        'classes.csv'
    """

    output = "probabilities"  # of predict_step

    def __init__(self, path: str = "predictions.csv", *, numbered: bool = False) -> None:
        super().__init__(path, "epoch", numbered=numbered)

    def write_on_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule, predictions: Sequence[Any], batch_indices: Sequence[Any]
    ) -> None:
        data = training_data(trainer.datamodule)  # type: ignore[attr-defined]
        own_rows = [
            (index, row)
            for batch in predictions
            for index, row in zip(batch["index"].tolist(), batch[self.output].tolist(), strict=True)
        ]
        rows = sorted(gather_objects(own_rows))
        if not trainer.is_global_zero:
            return
        _check_complete(len(rows), data)
        header = self.header(pl_module)
        table = [[data.predict_paths[index], *self.cells(pl_module, row), ""] for index, row in rows]
        table += [[path, *("" for _ in header), problem] for path, problem in data.predict_problems.items()]
        write_csv(self.path, [["path", *header, "error"], *sorted(table, key=lambda cells: cells[0])])
        self.say_at_the_end(f"Wrote {self.path}: {_counted(len(rows), data)}.")

    def header(self, module: Any) -> list[str]:
        """The names of the columns of predictions."""
        return ["predicted", *module.class_names]

    def cells(self, module: Any, row: Any) -> list[str]:
        """The cells of an image in these columns."""
        several = getattr(module, "several_labels", False)
        return [_predicted(module.class_names, row, several), *(f"{p:.6f}" for p in row)]


class NumberWriter(PredictionWriter):
    """Writes one CSV row per image: its path, the predicted number, and an error.

    An image that cannot be read has a row too: no number, and the reason as its error.

    Args:
        path: The CSV file; it must not exist yet.
        numbered: Whether a path that is taken gets a number, instead of being refused.

    Example:
        >>> NumberWriter("runs/mine/wear.csv").path.name
        'wear.csv'
    """

    output = "numbers"

    def header(self, module: Any) -> list[str]:
        """The name of the measured quantity."""
        return list(module.class_names)

    def cells(self, module: Any, row: Any) -> list[str]:
        """The number."""
        return [f"{row:.6g}"]


class LabelMapWriter(PredictionOutput):
    """Writes one PNG per image, with the size of the image on disk and the values of the training maps.

    The PNG has a palette, so that its classes can be seen in a viewer, or 16 bits if the values exceed 255. The folder mirrors
    that of the images.

    Args:
        path: A folder that is empty or does not exist yet. It appears when all maps are in it.
        numbered: Whether a path that is taken gets a number, instead of being refused.

    Example:
        >>> LabelMapWriter("runs/mine/maps").path.name
        'maps'
    """

    kind = "folder"

    def __init__(self, path: str = "predictions", *, numbered: bool = False) -> None:
        super().__init__(path, "batch", numbered=numbered)
        self._num_written = 0
        self._names: list[str] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._num_written = 0
        self._names = map_names(training_data(trainer.datamodule).predict_paths)  # type: ignore[attr-defined]

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
            data = encode_map(classes, pl_module.map_values, pl_module.colours)
            write_atomically(self.partial / self._names[index], data)
            self._num_written += 1

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = training_data(trainer.datamodule)  # type: ignore[attr-defined]
        written = torch.tensor(self._num_written, device=pl_module.device)
        sum_over_processes(written)
        if trainer.is_global_zero:
            _check_complete(int(written), data)
            if data.predict_problems:
                write_csv(self.partial / "errors.csv", [["path", "error"], *data.predict_problems.items()])
            self.name_folder()
        self.say_at_the_end(f"Wrote {self.path}/: {_counted(int(written), data)}.")


class CocoResults(PredictionOutput):
    """Writes detections as COCO results: the original ids of images and categories, boxes, scores, and masks as run lengths.

    A result holds both box and mask, as detectors usually write them. pycocotools then uses the area of the box, not of the mask,
    when it evaluates masks by size; remove ``bbox`` before that, as is common practice.

    A second file, ``<name>_images.json``, has one entry per image: its id and file name, or the reason why it cannot be read.

    Args:
        path: The JSON file; it must not exist yet.
        numbered: Whether a path that is taken gets a number, instead of being refused.

    Example:
        >>> CocoResults("runs/mine/results.json").path.name
        'results.json'
    """

    def __init__(self, path: str = "results.json", *, numbered: bool = False) -> None:
        super().__init__(path, "epoch", numbered=numbered)

    def files(self, path: Path) -> list[Path]:
        return [path, path.with_name(f"{path.stem}_images.json")]

    def write_on_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule, predictions: Sequence[Any], batch_indices: Sequence[Any]
    ) -> None:
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        data, image_ids = training_data(datamodule), datamodule.predict_image_ids
        category_ids: Any = datamodule.category_ids or pl_module.category_ids
        results = gather_objects(coco_results(predictions, image_ids, category_ids))
        indices = gather_objects([index for batch in predictions for index in batch["index"].tolist()])
        results.sort(key=lambda result: result["image_id"])  # a stable sort: an image's detections keep their order
        if not trainer.is_global_zero:
            return
        _check_complete(len(indices), data)
        images = [{"id": number, "file_name": name} for number, name in zip(image_ids, data.predict_paths, strict=True)]
        images += [{"file_name": name, "error": problem} for name, problem in data.predict_problems.items()]
        write_atomically(self.path, json.dumps(results).encode())
        write_json(self.files(self.path)[1], images)
        self.say_at_the_end(f"Wrote {self.path}: {len(results):,} detections; {_counted(len(indices), data)}.")


def _predicted(names: Sequence[str], probabilities: Sequence[float], several: bool) -> str:
    """The likeliest class; with several labels all of at least 0.5, separated by bars."""
    if several:
        return "|".join(name for name, p in zip(names, probabilities, strict=True) if p >= 0.5)
    return names[probabilities.index(max(probabilities))]


def _check_complete(num_predicted: int, data: TrainingData) -> None:
    """Checks that every image was predicted exactly once.

    Raises:
        UserError: Some were not.
    """
    if num_predicted != len(data.predict_paths):
        raise UserError(
            f"{num_predicted:,} of {len(data.predict_paths):,} images were predicted, so nothing was written: run predict again "
            "without limit_predict_batches, and on all the images."
        )


def _counted(num_predicted: int, data: TrainingData) -> str:
    """How many images were predicted, and how many could not be read."""
    problems = data.predict_problems
    unread = f", {len(problems):,} could not be read ({', '.join(list(problems)[:3])})" if problems else ""
    return f"{num_predicted:,} images{unread}"


def write_csv(path: Path, rows: Iterable[Iterable[str]]) -> None:
    """Writes rows as CSV, atomically."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_atomically(path, text.getvalue().encode("utf-8", "surrogateescape"))


def map_names(paths: Sequence[str]) -> list[str]:
    """File names of the maps: those of the images with ``.png`` as extension; after the image's own where two would collide."""
    plain = [str(PurePosixPath(path).with_suffix(".png")) for path in paths]
    count = Counter(plain)
    return [name if count[name] == 1 else f"{path}.png" for name, path in zip(plain, paths, strict=True)]


def encode_map(classes: np.ndarray, values: Sequence[int], colours: Sequence[Sequence[int]] | None = None) -> bytes:
    """Encodes class indices as a PNG with the values of the training maps.

    The PNG has 16 bits if a value exceeds 255, is grey if the values are 0 and 255, and has a palette otherwise.

    Args:
        classes: Class indices (H, W), all in [0, len(values)).
        values: The value of each class.
        colours: The colour of each class in the palette; None for colours that are easily told apart.
    """
    pixels = np.array(values)[classes]
    picture = Image.fromarray(pixels.astype(np.uint16 if max(values) > 255 else np.uint8))
    if max(values) <= 255 and tuple(values) != BINARY:
        palette = np.zeros((256, 3), dtype=np.uint8)
        palette[list(values)] = class_colours(len(values)) if colours is None else colours
        picture.putpalette(palette.tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def coco_results(
    predictions: Sequence[dict[str, Any]], image_ids: Sequence[int], category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """Turns outputs of ``Detect.predict_step`` into a list of COCO results.

    Args:
        predictions: One output per batch.
        image_ids: Ids of the images by index.
        category_ids: Ids of the categories by label.
    """
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
