"""What an archive holds is judged by torch's own reader, before anything in it is loaded."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_programs import Writes

from lit_splitmask.cli import main
from lit_splitmask.pickles import NotPlainError, check_archive, load_tensors, oversized, reason


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A TorchScript program that writes ``ran`` into the current folder when it is loaded."""
    path = tmp_path_factory.mktemp("program") / "program.pt"
    with pytest.warns(FutureWarning):
        torch.jit.script(Writes("ran")).save(str(path))
    return path.read_bytes()


DISGUISES: dict[str, Any] = {
    "as it is": lambda data: data,
    "an end mark of an archive after it": lambda data: data + b"PK\x05\x06",
    "text after it": lambda data: data + b"\0" * 100,
    "an empty archive after it": lambda data: data + b"PK\x05\x06" + bytes(18),
    "an archive of weights after it": lambda data: data + saved({"a": torch.zeros(2)}),
    "an archive of weights before it": lambda data: saved({"a": torch.zeros(2)}) + data,
    "without its constants by name": lambda data: data.replace(b"constants.pkl", b"constants.PKL"),
}


def saved(value: Any, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **settings)
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_program_in_any_disguise_is_refused_and_not_run(
    disguise: str, program: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("program.pkl").write_bytes(DISGUISES[disguise](program))
    assert main(["convert-dalle", "--weights", "program.pkl"]) == 1
    assert main(["embed", "--data.root", ".", "--weights", "program.pkl"]) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert not Path("ran").exists()


def test_the_program_would_write_a_file(program: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the test above could not fail."""
    monkeypatch.chdir(tmp_path)
    with pytest.warns(FutureWarning):
        torch.jit.load(io.BytesIO(program))
    assert Path("ran").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_save_writes_passes(zipped: bool, tmp_path: Path) -> None:
    state = {"a": torch.arange(6.0).view(2, 3), "b": {"c": 3, "d": [torch.zeros(1, dtype=torch.int64)]}}
    (tmp_path / "w.pt").write_bytes(saved(state, _use_new_zipfile_serialization=zipped))
    assert torch.equal(load_tensors(tmp_path / "w.pt")["a"], state["a"])


def test_an_archive_that_unpacks_to_more_than_it_takes_is_refused() -> None:
    """1 MB of a compressed archive may be 1 GB of zeros."""
    packed = io.BytesIO()
    plain = zipfile.ZipFile(io.BytesIO(saved({"a": torch.zeros(100)})))
    with plain, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in plain.infolist():
            archive.writestr(entry.filename, plain.read(entry.filename))
    packed.seek(0)
    assert torch.equal(torch.load(packed, weights_only=True)["a"], torch.zeros(100))  # torch itself takes it
    with pytest.raises(NotPlainError, match="compressed"):
        check_archive(packed)


def test_a_tensor_that_repeats_a_stored_value_is_found(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(saved({"w": torch.zeros(1).expand(10**12)}))
    assert oversized(load_tensors(tmp_path / "w.pt").values())
    assert not oversized([torch.zeros(3, 4), torch.zeros(3, 4)[1:], torch.zeros(0)])


def test_advice_to_load_code_is_not_passed_on(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(pickle.dumps({"a": print}, protocol=2))
    with pytest.raises(pickle.UnpicklingError) as caught:
        load_tensors(tmp_path / "w.pt")
    assert "weights_only" in str(caught.value)
    assert reason(caught.value) == "it asks for code to be run (print), which weights do not need"
