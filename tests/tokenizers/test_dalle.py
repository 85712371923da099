"""DALL-E's encoder: its architecture, its words, and reading its pickle without running code."""

import os
import pickle
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_splitmask.checkpoints import write_safetensors
from lit_splitmask.cli import main
from lit_splitmask.errors import UserError
from lit_splitmask.tokenizers import DallE, dalle
from lit_splitmask.tokenizers.dalle_pickle import read_encoder


class Conv2d(nn.Module):
    """As in OpenAI's dall_e/utils.py: tensors ``w`` and ``b``, and an output of the same size."""

    def __init__(self, n_in: int, n_out: int, kw: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(n_out, n_in, kw, kw) / (n_in * kw**2) ** 0.5)
        self.b = nn.Parameter(0.1 * torch.randn(n_out))
        self.kw = kw

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.w, self.b, padding=(self.kw - 1) // 2)


class EncoderBlock(nn.Module):
    def __init__(self, n_in: int, n_out: int, n_layers: int) -> None:
        super().__init__()
        n_hid = n_out // 4
        self.post_gain = 1 / n_layers**2
        self.id_path = Conv2d(n_in, n_out, 1) if n_in != n_out else nn.Identity()
        self.res_path = nn.Sequential()
        for number, (a, b, kw) in enumerate(
            [(n_in, n_hid, 3), (n_hid, n_hid, 3), (n_hid, n_hid, 3), (n_hid, n_out, 1)], 1
        ):
            self.res_path.add_module(f"relu_{number}", nn.ReLU())
            self.res_path.add_module(f"conv_{number}", Conv2d(a, b, kw))

    def forward(self, x: Tensor) -> Tensor:
        return self.id_path(x) + self.post_gain * self.res_path(x)


class Encoder(nn.Module):
    """Groups of two blocks, with max-pooling after each group but the last."""

    def __init__(self, n_hid: int, vocab_size: int) -> None:
        super().__init__()
        self.device = torch.device("cpu")
        self.blocks = nn.Sequential()
        self.blocks.add_module("input", Conv2d(3, n_hid, 7))
        width = n_hid
        for group in range(1, 5):
            part = nn.Sequential()
            for block in (1, 2):
                part.add_module(f"block_{block}", EncoderBlock(width, n_hid * 2 ** (group - 1), 8))
                width = n_hid * 2 ** (group - 1)
            if group < 4:
                part.add_module("pool", nn.MaxPool2d(2))
            self.blocks.add_module(f"group_{group}", part)
        output = nn.Sequential()
        output.add_module("relu", nn.ReLU())
        output.add_module("conv", Conv2d(width, vocab_size, 1))
        self.blocks.add_module("output", output)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same architecture with a width of 8 and 32 words; a test below checks the shapes of the real one."""
    monkeypatch.setattr(dalle, "WIDTH", 8)
    monkeypatch.setattr(dalle, "VOCABULARY", 32)


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(8, 32)


def pickled(encoder: Any, path: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Path:
    """Pickles the encoder under OpenAI's names."""
    for module, classes in (("dall_e.encoder", (Encoder, EncoderBlock)), ("dall_e.utils", (Conv2d,))):
        fake = ModuleType(module)
        for one in classes:
            monkeypatch.setattr(one, "__module__", module)
            setattr(fake, one.__name__, one)
        monkeypatch.setitem(sys.modules, module, fake)
    monkeypatch.setitem(sys.modules, "dall_e", ModuleType("dall_e"))
    torch.save(encoder, path, **settings)
    for module in ("dall_e", "dall_e.encoder", "dall_e.utils"):
        monkeypatch.delitem(sys.modules, module)
    return path


def test_the_real_encoder_has_its_published_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert sum(torch.Size(shape).numel() for shape in dalle.shapes().values()) == 53_786_240
    assert dalle.shapes()["blocks.group_4.block_1.id_path.w"] == (2048, 1024, 1, 1)
    assert dalle.shapes()["blocks.output.conv.w"] == (8192, 2048, 1, 1)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickled_encoder_is_converted_and_gives_the_same_words(
    encoder: Encoder, zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pickled(encoder, tmp_path / "encoder.pkl", monkeypatch, _use_new_zipfile_serialization=zipped)
    assert main(["convert-dalle", "--weights", str(path), "--out", str(tmp_path / "d.safetensors")]) == 0
    tokenizer = DallE(8, weights=str(tmp_path / "d.safetensors"))
    view = torch.rand(2, 3, 48, 32)
    torch.testing.assert_close(tokenizer.logits(view), encoder(0.8 * view + 0.1), rtol=1e-4, atol=1e-5)
    words = tokenizer(view)
    assert torch.equal(words, encoder(0.8 * view + 0.1).argmax(dim=1).flatten(1))
    assert words.shape == (2, 24)
    assert tokenizer.vocabulary == 32


@pytest.mark.parametrize(("exact", "dtype"), [(True, torch.float32), (False, torch.bfloat16)])
def test_logits_are_in_the_trainers_precision_or_exact(
    exact: bool, dtype: torch.dtype, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "d.safetensors")
    dalle.save_encoder(encoder.state_dict(), path)
    tokenizer = DallE(8, weights=path, exact=exact)
    view = torch.rand(2, 3, 32, 32)
    scores: list[Tensor] = []
    plain, words = tokenizer.logits(view), tokenizer(view)
    monkeypatch.setattr(tokenizer, "logits", lambda view: scores.append(DallE.logits(tokenizer, view)) or scores[-1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(tokenizer(view), words)
    assert scores[0].dtype == dtype
    torch.testing.assert_close(scores[0].float(), plain, rtol=0, atol=0 if exact else 0.02 * float(plain.abs().max()))


def test_checkpoints_and_optimizers_do_not_hold_its_weights(encoder: Encoder, tmp_path: Path) -> None:
    dalle.save_encoder(encoder.state_dict(), tmp_path / "d.safetensors")
    tokenizer = DallE(8, weights=str(tmp_path / "d.safetensors"))
    assert not tokenizer.state_dict()
    assert not list(tokenizer.parameters())


def test_a_plain_state_dict_can_be_read_too(encoder: Encoder, tmp_path: Path) -> None:
    torch.save(
        {"state_dict": {f"encoder.{name}": value for name, value in encoder.state_dict().items()}}, tmp_path / "e.pth"
    )
    state = read_encoder(tmp_path / "e.pth")
    assert state.keys() == encoder.state_dict().keys()


class Malicious:
    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_asks_for_other_names_is_refused_and_not_run(
    zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Malicious()}, "bad.pkl", _use_new_zipfile_serialization=zipped)
    assert main(["convert-dalle", "--weights", "bad.pkl"]) == 1
    assert ".system, which the encoder of DALL-E does not need" in capsys.readouterr().err
    Path("plain.pkl").write_bytes(pickle.dumps(Malicious()))
    assert main(["convert-dalle", "--weights", "plain.pkl"]) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"bad.pkl", "plain.pkl"}


def test_a_torchscript_program_is_refused_before_it_can_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``torch.load`` would hand it to TorchScript without asking the unpickler."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was loaded"))
    for name in ("archive/constants.pkl", "archive/code/__torch__.py"):
        with zipfile.ZipFile("program.pkl", "w") as archive:
            archive.writestr("archive/data.pkl", b"")
            archive.writestr(name, b"")
        assert main(["convert-dalle", "--weights", "program.pkl"]) == 1
        assert "none of its code was run" in capsys.readouterr().err


@pytest.mark.parametrize(
    "found", [{"state_dict": 3}, {1: torch.zeros(1)}, [torch.zeros(1)], {"a": {"b": torch.zeros(1)}}]
)
def test_a_file_without_the_encoder_is_refused(found: Any, tmp_path: Path) -> None:
    torch.save(found, tmp_path / "odd.pth")
    with pytest.raises(UserError, match="does not hold the encoder"):
        read_encoder(tmp_path / "odd.pth")


def test_weights_must_be_given() -> None:
    with pytest.raises(UserError, match="convert-dalle"):
        DallE(8)


def test_other_files_are_refused(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.pkl").write_text("no pickle")
    torch.save({"w": torch.zeros(2)}, "other.pth")
    wrong = {**encoder.state_dict(), "blocks.input.b": torch.zeros(9)}
    torch.save(wrong, "shape.pth")
    write_safetensors("other.safetensors", {"w": torch.zeros(2)}, {})
    for name, message in (
        ("text.pkl", "cannot be read"),
        ("other.pth", "does not hold the encoder"),
        ("shape.pth", "1 of its tensors"),
        ("none.pkl", "none.pkl does not exist"),
    ):
        assert main(["convert-dalle", "--weights", name]) == 1
        assert message in capsys.readouterr().err
    with pytest.raises(UserError, match="does not hold the encoder"):
        DallE(8, weights="other.safetensors")
    with pytest.raises(UserError, match="patches of 16 px and 3 channels, not patches of 8 px"):
        DallE(4, weights="other.safetensors")
    Path("there.safetensors").write_bytes(b"")
    assert main(["convert-dalle", "--weights", "shape.pth", "--out", "there.safetensors"]) == 1
    assert "already exists" in capsys.readouterr().err


def test_pretraining_on_its_words_with_the_recipe(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, class_folder: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    root = class_folder(per_class=5)
    dalle.save_encoder(encoder.state_dict(), "d.safetensors")
    options = (
        "--model.backbone.size tiny --model.backbone.embed_dim 32 --model.backbone.depth 2 --model.backbone.num_heads 2"
    )
    options += (
        " --data.image_size 64 --data.batch_size 4 --data.num_workers 0 --data.budget.steps 2 --trainer.accelerator cpu"
    )
    command = ["pretrain", "--recipe", "beit_dalle", "--data.root", str(root), "--name", "d", *options.split()]
    assert main([*command, "--model.objective.tokenizer.weights", "d.safetensors"]) == 0
    assert Path("runs/d/backbone.safetensors").is_file()
    assert not Path("runs/d/codebook.safetensors").exists()
