"""Regression: units, losses, scores, and files."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import BACKBONE, DATA, OPTIM, classifier, image_data, tiny_trainer

from lit_splitmask.callbacks import ExportWeights, NumberWriter
from lit_splitmask.callbacks.early_stopping import better
from lit_splitmask.checkpoints import load_weights
from lit_splitmask.commands.export.card import model_card
from lit_splitmask.commands.export.formats import difference, write_timm
from lit_splitmask.commands.export.trained import read_trained
from lit_splitmask.datamodules import Budget, RegressionManifest
from lit_splitmask.errors import UserError
from lit_splitmask.models import ViTConfig
from lit_splitmask.modules import Classify, Regress
from lit_splitmask.optim import OptimConfig

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs


def regressor(**settings: Any) -> Regress:
    optim = OptimConfig(**OPTIM | {"lr": settings.pop("lr", 1e-3)})
    return Regress(**({"backbone": ViTConfig(image_size=32, **BACKBONE), "optim": optim, "drop_path": 0.0} | settings))


def write(folder: Path, slope: float = 1.0, start: float = 0.0) -> Path:
    """A list of 40 grey images whose number follows their brightness."""
    rows = ["path,split,wear"]
    for n in range(40):
        grey = 40 + 4 * n
        Image.fromarray(np.full((32, 32, 3), grey, dtype=np.uint8)).save(folder / f"{n}.png")
        split = ("val", "test")[n % 2] if n % 10 in (4, 5) else "train"
        rows.append(f"{n}.png,{split},{start + slope * grey}")
    path = folder / "list.csv"
    path.write_text("\n".join(rows))
    return path


def data(path: Path, steps: int = 2, **settings: Any) -> RegressionManifest:
    values: dict[str, Any] = {**DATA, "budget": Budget(steps=steps), "index_dir": str(path.parent / "index")}
    return RegressionManifest(str(path), target="wear", **(values | settings))


def fitted(path: Path, steps: int = 2, **settings: Any) -> tuple[Regress, RegressionManifest, Any]:
    images, module = data(path, steps), regressor(**settings)
    trainer = tiny_trainer(path.parent)
    trainer.fit(module, datamodule=images)
    return module, images, trainer


def test_it_learns_brightness_in_any_unit(tmp_path: Path) -> None:
    module, images, trainer = fitted(write(tmp_path, slope=0.01, start=2000.0), steps=40, lr=5e-3)
    scores = trainer.test(module, datamodule=images, verbose=False)[0]
    truth, predicted = np.array(module.test_pairs).T
    assert scores["test/mae"] == pytest.approx(np.abs(truth - predicted).mean(), abs=2e-4)  # float32 near 2000
    assert scores["test/rmse"] == pytest.approx(np.sqrt(((truth - predicted) ** 2).mean()), abs=2e-4)
    r2 = 1 - ((truth - predicted) ** 2).sum() / ((truth - truth.mean()) ** 2).sum()
    assert scores["test/r2"] == pytest.approx(r2, abs=1e-3)
    assert scores["test/mae"] < 0.5 * np.abs(truth - np.median(images.train_targets)).mean()


def test_mean_and_deviation_are_those_of_the_training_images(tmp_path: Path) -> None:
    module, images, _ = fitted(write(tmp_path))
    assert float(module.target_mean) == pytest.approx(images.train_targets.mean())
    assert float(module.target_std) == pytest.approx(images.train_targets.std())


@pytest.mark.parametrize("loss", ["smooth_l1", "mse"])
def test_the_loss_is_that_of_the_standardised_numbers(
    loss: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, images, _ = fitted(write(tmp_path), loss=loss)
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    batch = next(iter(images.train_dataloader()))
    batch["label"][0] += 1000  # far beyond one standard deviation, where the losses differ
    error = ((module(batch["image"]) - batch["label"]) / module.target_std).detach().abs()
    by_hand = torch.where(error < 1, error**2 / 2, error - 0.5) if loss == "smooth_l1" else error**2
    assert float(module.training_step(batch, 0).detach()) == pytest.approx(float(by_hand.mean()), rel=1e-4)


def test_a_file_predicts_what_was_trained_here_and_in_timm(tmp_path: Path) -> None:
    path = write(tmp_path, start=500.0)
    module, images, _ = fitted(path, steps=6)
    file = tmp_path / "regressor.safetensors"
    ExportWeights(str(file)).export(module, step=6)
    restored = Regress(str(file), keep_head=True)
    trainer = tiny_trainer(tmp_path, callbacks=[NumberWriter(str(tmp_path / "p.csv"))])
    trainer.predict(restored, datamodule=image_data(tmp_path, crop_ratio=images.crop_ratio))
    with (tmp_path / "p.csv").open() as table:
        rows = {row["path"]: float(row["wear"]) for row in csv.DictReader(table)}
    assert len(rows) == 40
    images.setup("test")
    batch = next(iter(images.test_dataloader()))
    with torch.no_grad():
        expected = module.eval()(batch["image"])
    names = [images.source.splits["test"].files[index] for index in batch["index"].tolist()]
    assert [rows[name] for name in names] == pytest.approx(expected.tolist(), rel=1e-5)
    trained = read_trained(str(file))
    with torch.no_grad():
        assert trained.from_pixels()(batch["image"])[:, 0].tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    assert 'print("wear", number[0, 0])' in model_card(trained, "onnx", tmp_path)
    (tmp_path / "timm").mkdir()
    assert difference(trained, write_timm(tmp_path / "timm", trained)) < 1e-4
    again = Regress(str(tmp_path / "timm" / "model.safetensors"), keep_head=True)
    with torch.no_grad():
        assert again.eval()(batch["image"]).tolist() == pytest.approx(expected.tolist(), rel=1e-5)


def test_a_classifier_and_a_regressor_do_not_pass_for_each_other(tmp_path: Path) -> None:
    module, _, _ = fitted(write(tmp_path))
    numbers, classes = str(tmp_path / "regressor.safetensors"), str(tmp_path / "classifier.safetensors")
    ExportWeights(numbers).export(module, step=2)
    ExportWeights(classes).export(classifier(num_classes=2), step=0)
    with pytest.raises(
        UserError, match=r"keep_head needs a trained classifier, but .*regressor.safetensors is not one"
    ):
        Classify(numbers, keep_head=True)
    with pytest.raises(
        UserError, match=r"keep_head needs a trained regressor, but .*classifier.safetensors is not one"
    ):
        Regress(classes, keep_head=True)
    assert Classify(numbers, num_classes=2).vit.num_classes == 2  # its backbone is as good as any
    regressor(weights=classes, backbone=None).build(1)


def test_a_file_with_a_wrong_unit_is_refused(tmp_path: Path) -> None:
    module = regressor()
    module.build(1)
    module.target_std.fill_(0.0)
    file = tmp_path / "regressor.safetensors"
    ExportWeights(str(file)).export(module, step=0)
    with pytest.raises(UserError, match=r"regressor is .*, but must be a mean and a std above 0"):
        load_weights(file)


def test_images_without_numbers_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path)
    for n in range(2):
        (tmp_path / "folders" / str(n)).mkdir(parents=True)
        Image.fromarray(np.full((32, 32, 3), n, dtype=np.uint8)).save(tmp_path / "folders" / str(n) / "a.png")
    with pytest.raises(UserError, match="Regress learns numbers, but ImageFolder gives none: use RegressionManifest"):
        tiny_trainer(tmp_path).fit(regressor(), datamodule=image_data(tmp_path / "folders"))
    with pytest.raises(UserError, match=r"The images of data.pool \(.*\) have no numbers"):
        tiny_trainer(tmp_path).fit(regressor(), datamodule=data(path, pool=[str(tmp_path / "folders")]))
    lines = path.read_text().splitlines()
    same = [line if "train" not in line else line.rpartition(",")[0] + ",7" for line in lines]
    path.with_name("same.csv").write_text("\n".join(same))
    with pytest.raises(UserError, match="The training images all have the number 7"):
        tiny_trainer(tmp_path).fit(regressor(), datamodule=data(path.with_name("same.csv")))
    with pytest.raises(UserError, match="loss is 'l3', but must be smooth_l1 or mse"):
        regressor(loss="l3")


def test_a_single_test_image_has_an_error_but_no_r2(tmp_path: Path) -> None:
    path = write(tmp_path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line for n, line in enumerate(lines) if "test" not in line or n == 6))
    module, images, trainer = fitted(path)
    scores = trainer.test(module, datamodule=images, verbose=False)[0]
    assert np.isfinite(scores["test/mae"])
    assert np.isnan(scores["test/r2"])


def test_of_errors_the_lowest_is_best() -> None:
    assert [better(f"val/{name}") for name in ("mae", "rmse", "loss", "r2", "map")] == ["min"] * 3 + ["max"] * 2


def test_the_loss_on_val_is_logged_as_a_mean_over_the_images_of_all_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, images, _ = fitted(write(tmp_path))
    batch, logged = next(iter(images.val_dataloader())), []
    monkeypatch.setattr(module, "log_held_out", lambda losses, number: logged.append((sorted(losses), number)))
    monkeypatch.setattr(module, "log_dict", lambda *_, **__: None)
    module.validation_step(batch, 0)
    assert logged == [(["loss"], len(batch["image"]))]
