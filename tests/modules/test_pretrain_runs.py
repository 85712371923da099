"""Training runs: seeds, workers, resuming, tokenizers, several processes."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from safetensors.torch import load_file
from tiny_runs import image_data, pretrain_module, same_tensors, tiny_trainer

from lit_splitmask.augment import PretrainAugment
from lit_splitmask.datamodules import Budget
from lit_splitmask.errors import UserError
from lit_splitmask.modules import Pretrain
from lit_splitmask.optim import OptimConfig
from lit_splitmask.tokenizers import KMeans, RandomProjection

MakeFolder = Callable[..., Path]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs


@pytest.fixture
def root(class_folder: MakeFolder) -> Path:
    return class_folder(per_class=8)


def trained(
    root: Path, *, steps: int = 6, ckpt_path: Any = None, data: Any = None, module: Any = None, **trainer: Any
) -> Pretrain:
    module = module or pretrain_module()
    data = data or image_data(root, steps=steps)
    tiny_trainer(root.parent, **trainer).fit(module, datamodule=data, ckpt_path=ckpt_path)
    return module


class Rates(Callback):
    """Notes the learning rate of every step."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def test_the_same_seed_gives_the_same_weights_for_any_number_of_workers(root: Path) -> None:
    weights = [
        trained(root, data=image_data(root, num_workers=workers), limit_val_batches=validate).state_dict()
        for workers, validate in ((0, 0), (2, 0), (0, 1.0))
    ]
    assert same_tensors(weights[0], weights[1])
    assert same_tensors(weights[0], weights[2])  # validations change nothing


def test_another_seed_gives_other_weights(root: Path) -> None:
    first = trained(root, steps=1).vit.state_dict()
    by_model = trained(root, module=pretrain_module(seed=1), steps=1).vit.state_dict()
    by_data = trained(root, data=image_data(root, seed=1, steps=1)).vit.state_dict()
    assert not torch.equal(first["patch_embed.proj.weight"], by_model["patch_embed.proj.weight"])
    assert not torch.equal(first["patch_embed.proj.weight"], by_data["patch_embed.proj.weight"])


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("stop_after", [3, 4], ids=["at the end of an epoch", "in the middle of an epoch"])
def test_a_resumed_run_ends_with_the_same_weights(root: Path, stop_after: int, num_workers: int) -> None:
    whole, second = Rates(), Rates()
    data = partial(image_data, root, num_workers=num_workers)
    folder = root.parent / "ckpt"
    every = ModelCheckpoint(str(folder), every_n_train_steps=1, save_top_k=-1, filename="{step}")
    expected = trained(root, data=data(), callbacks=[whole, every], enable_checkpointing=True)
    checkpoint = folder / f"step={stop_after}.ckpt"
    resumed = trained(root, data=data(), callbacks=[second], ckpt_path=checkpoint)
    assert same_tensors(expected.state_dict(), resumed.state_dict())
    assert second.rates == whole.rates[stop_after:]
    assert len(set(whole.rates)) > 2  # the rates change, so their equality is meaningful


def test_an_optimizer_state_is_continued_on_resume(root: Path) -> None:
    folder = root.parent / "ckpt"
    every = ModelCheckpoint(str(folder), every_n_train_steps=1, save_top_k=-1, filename="{step}")
    module = pretrain_module()
    tiny_trainer(root.parent, callbacks=[every], enable_checkpointing=True).fit(module, datamodule=image_data(root))
    resumed = pretrain_module()
    trainer = tiny_trainer(root.parent, callbacks=[])
    trainer.fit(resumed, datamodule=image_data(root), ckpt_path=folder / "step=4.ckpt")
    steps = {float(state["step"]) for state in trainer.optimizers[0].state.values()}
    assert steps == {6.0}


def test_a_codebook_is_fitted_once_and_stored_in_the_checkpoint(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    fit = KMeans.fit
    monkeypatch.setattr(KMeans, "fit", lambda self, *a, **k: (calls.append(1), fit(self, *a, **k))[1])
    kmeans = partial(KMeans, vocabulary=16, pixels="centred")
    saved = ModelCheckpoint(str(root.parent / "ckpt"), every_n_train_steps=3, save_top_k=-1, filename="{step}")
    module = trained(root, module=pretrain_module(tokenizer=kmeans), callbacks=[saved], enable_checkpointing=True)
    assert len(calls) == 1
    codebook = module.objective.tokenizer_to_fit.codebook  # type: ignore[union-attr]
    path = root.parent / "ckpt" / "step=3.ckpt"
    stored = torch.load(path, weights_only=True)["state_dict"]
    assert torch.equal(stored["objective.tokenizer.codebook"], codebook)
    assert bool(stored["objective.tokenizer.fitted"])
    again = trained(root, module=pretrain_module(tokenizer=kmeans), ckpt_path=path)
    assert len(calls) == 1
    assert same_tensors(again.state_dict(), module.state_dict())


def test_a_codebook_is_kept_for_the_next_run_on_the_same_data_and_settings(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[int] = []
    fit = KMeans.fit
    monkeypatch.setattr(KMeans, "fit", lambda self, *a, **k: (calls.append(1), fit(self, *a, **k))[1])

    def run(seed: int = 0, vocabulary: int = 16, data: Any = None, **settings: Any) -> Any:
        kmeans = partial(KMeans, vocabulary=vocabulary, pixels="centred")
        module = pretrain_module(tokenizer=kmeans, seed=seed)
        return trained(root, module=module, data=data or image_data(root, steps=2, **settings)).state_dict()

    first, again = run(), run()
    assert len(calls) == 1
    assert same_tensors(first, again)
    for number, other in enumerate(
        ({"seed": 1}, {"vocabulary": 17}, {"augment": PretrainAugment(hflip=0.0)}, {"label_share": 0.5}), start=2
    ):
        run(**other)
        assert len(calls) == number
    files = sorted((root.parent / "index").glob("*/words-*.safetensors"))
    assert len(files) == 5
    for file in files:
        file.write_bytes(file.read_bytes()[:-9])
    assert same_tensors(first, run())
    assert len(calls) == 6
    assert "damaged" in caplog.text


def test_other_pixels_in_a_file_ask_for_another_codebook(root: Path) -> None:
    def file() -> Path:
        data = image_data(root, index_dir=str(root.parent / f"index{len(names)}"))
        data.prepare_data()
        data.setup("validate")
        assert data.fitted_file is not None
        return data.fitted_file("settings")

    names: list[str] = []
    names.append(file().name)
    names.append(file().name)
    image = next(root.rglob("*.png"))
    Image.eval(Image.open(image), lambda value: 255 - value).save(image)
    names.append(file().name)
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize(("vocabulary", "crops"), [(2, 1), (16, 3), (60, 8)])
def test_few_images_give_several_crops_each_for_the_codebook(
    root: Path, monkeypatch: pytest.MonkeyPatch, vocabulary: int, crops: int
) -> None:
    num_crops: list[int] = []
    views: list[torch.Tensor] = []

    def fit(self: KMeans, stream: Any, num_images: int, seed: int) -> None:
        num_crops.append(num_images)
        views.extend(stream)
        self.set_codebook(torch.rand(self.codebook.shape))

    monkeypatch.setattr(KMeans, "fit", fit)
    module = trained(root, module=pretrain_module(tokenizer=partial(KMeans, vocabulary=vocabulary)), steps=1)
    num_images = module.trainer.datamodule.schedule.num_images
    assert num_crops == [crops * num_images]  # 16 patches per crop, at least 39 per word, at most 8 crops
    crops_seen = torch.cat(views).flatten(1)
    assert len(crops_seen) == num_crops[0] == len(crops_seen.unique(dim=0))  # different crops in every pass


def test_a_codebook_does_not_change_during_training(root: Path) -> None:
    module = pretrain_module()
    books: list[torch.Tensor] = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            books.append(pl_module.objective.tokenizer.codebook.clone())

    trained(root, module=module, callbacks=[Watch()])
    assert books[0].abs().sum() > 0
    assert all(torch.equal(book, books[0]) for book in books)


def test_words_are_measured_and_logged(root: Path) -> None:
    logger = CSVLogger(str(root.parent), name="", version="")
    module = trained(root, logger=logger, steps=1)
    assert module.word_statistics is not None
    assert 1 <= module.word_statistics.words_used <= 16
    header = (root.parent / "metrics.csv").read_text().splitlines()[0]
    for name in ("words/used", "words/perplexity", "words/top_share", "words/entropy", "train/inpaint", "train/match"):
        assert name in header


def test_nearly_constant_words_cause_a_warning(
    root: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RandomProjection, "forward", lambda self, view: torch.zeros(len(view), 16, dtype=torch.long))
    with caplog.at_level(logging.WARNING):
        trained(root, steps=1)
    assert "nearly constant" in caplog.text
    assert "centred" in caplog.text


def test_varied_words_cause_no_warning(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        trained(
            root,
            module=pretrain_module(tokenizer=partial(RandomProjection, vocabulary=16, pixels="centred", signed=True)),
            steps=1,
        )
    assert "nearly constant" not in caplog.text


def test_a_loss_of_nan_stops_the_run_before_it_reaches_the_weights(root: Path) -> None:
    module = pretrain_module()

    class Poison(Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if trainer.global_step == 2:
                forward = pl_module.objective.forward
                pl_module.objective.forward = lambda *a: {k: v * float("nan") for k, v in forward(*a).items()}

    with pytest.raises(UserError, match="learning rate") as caught:
        trained(root, module=module, callbacks=[Poison()])
    assert "step 2" in str(caught.value)
    assert all(torch.isfinite(value).all() for value in module.state_dict().values())


def test_an_image_size_that_differs_from_the_backbone_is_refused(root: Path) -> None:
    with pytest.raises(UserError, match=r"48 px.*32 px"):
        trained(root, data=image_data(root, image_size=48))


def test_held_out_losses_are_the_same_at_every_validation_of_the_same_weights(root: Path) -> None:
    module, data = pretrain_module(), image_data(root, steps=1)
    trainer = tiny_trainer(root.parent)
    trainer.fit(module, datamodule=data)
    first = trainer.validate(module, datamodule=data, verbose=False)
    torch.manual_seed(12345)
    assert trainer.validate(module, datamodule=data, verbose=False) == first
    assert {"val/loss", "val/inpaint", "val/match"} <= first[0].keys()


def test_the_learning_rate_scales_with_the_root_of_the_batch_size(root: Path) -> None:
    peaks = {}
    for batch_size in (4, 16):
        rates = Rates()
        optim = OptimConfig(lr=1e-3, reference_batch=8, warmup=0.0)
        trained(
            root,
            module=pretrain_module(optim=optim),
            data=image_data(root, batch_size=batch_size, steps=1),
            callbacks=[rates],
        )
        peaks[batch_size] = rates.rates[0]
    assert peaks[16] == pytest.approx(2 * peaks[4])


class Seen(Callback):
    """Notes the images of every optimizer step."""

    def __init__(self) -> None:
        self.steps: dict[int, list[int]] = {}

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.steps.setdefault(trainer.global_step, []).extend(batch["index"].tolist())


def test_accumulated_batches_keep_the_images_of_every_step(root: Path) -> None:
    plain, accumulated = Seen(), Seen()
    trained(root, callbacks=[plain])
    trained(root, callbacks=[accumulated], accumulate_grad_batches=2)
    assert len(plain.steps) == 6
    assert {k: sorted(v) for k, v in plain.steps.items()} == {k: sorted(v) for k, v in accumulated.steps.items()}


PROCESSES = """
import json, os, sys
from functools import partial
from pathlib import Path
sys.path.insert(0, sys.argv[3])
import torch
from lightning import Callback
from lit_splitmask.tokenizers import KMeans
from tiny_runs import end_together, image_data, pretrain_module, tiny_trainer

torch.set_num_threads(1)
root, devices = Path(sys.argv[1]), int(sys.argv[2])


class Losses(Callback):
    def __init__(self):
        self.losses, self.images = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"]))
        self.images.append(batch["index"].tolist())


watch = Losses()
strategy = {"strategy": "ddp", "devices": devices} if devices > 1 else {}
trainer = tiny_trainer(root.parent, callbacks=[watch], limit_val_batches=0, **strategy)
kmeans = partial(KMeans, vocabulary=16, pixels="centred")  # fitted anew, as the folder of the index is another one
module = pretrain_module(tokenizer=kmeans, drop_path=0.0)
trainer.fit(module, datamodule=image_data(root, steps=3, index_dir=str(root.parent / f"index{devices}")))
weight = module.objective.backbone.patch_embed.proj.weight.detach().double().sum()
result = {"losses": watch.losses, "images": watch.images, "sum": float(weight)}
(root.parent / f"of{devices}-rank{trainer.global_rank}.json").write_text(json.dumps(result))
end_together()
"""


def test_two_processes_have_the_losses_of_one_with_the_whole_batch(root: Path) -> None:
    import json

    script = root.parent / "script.py"
    script.write_text(PROCESSES)
    tests = str(Path(__file__).parents[1])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for devices in ("1", "2"):
        done = subprocess.run(
            [sys.executable, str(script), str(root), devices, tests],
            capture_output=True,
            text=True,
            env=environment,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    one = json.loads((root.parent / "of1-rank0.json").read_text())
    two = [json.loads((root.parent / f"of2-rank{rank}.json").read_text()) for rank in (0, 1)]
    for step in range(3):
        images = [sorted(rank["images"][step]) for rank in two]
        assert not set(images[0]) & set(images[1])
        assert sorted(images[0] + images[1]) == sorted(one["images"][step])
        both = sum(rank["losses"][step] for rank in two) / 2
        assert both == pytest.approx(one["losses"][step], rel=1e-4)
    assert two[0]["sum"] == two[1]["sum"]
    books = [load_file(next((root.parent / f"index{n}").glob("*/words-*")))["codebook"] for n in (1, 2)]
    assert torch.equal(*books)
    assert two[0]["losses"] != two[1]["losses"]  # each process had its own half


def test_a_budget_in_images_is_kept_under_accumulation(root: Path) -> None:
    data = image_data(root, budget=Budget(images=32), num_epochs=1)
    seen = Seen()
    trained(root, data=data, callbacks=[seen], accumulate_grad_batches=4)
    assert sum(map(len, seen.steps.values())) == 32
