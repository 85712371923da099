"""A run whose folder is deleted while it trains ends with one paragraph: what is lost, what is left, what to do."""

import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.utilities.exceptions import SIGTERMException
from tiny_runs import PRETRAIN, one_thread, recipe  # noqa: F401

from lit_splitmask.cli import main
from lit_splitmask.commands.compare.checks import says_if_gone
from lit_splitmask.commands.run_cli import quiet
from lit_splitmask.errors import UserError
from lit_splitmask.modules import Pretrain

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice on tiny runs, and TensorBoard's thread

RUN = ["pretrain", "--recipe", "pretrain.yaml", "--data.root", "shapes", "--name", "x"]


@pytest.fixture
def at_step(tmp_path: Path, class_folder: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Calls a function before a step of the next run in the current directory, which has ``shapes`` and ``pretrain.yaml``."""
    monkeypatch.chdir(tmp_path)
    class_folder(per_class=8)
    recipe(tmp_path / "pretrain.yaml", PRETRAIN)
    usual = Pretrain.training_step

    def arrange(number: int, happens: Callable[[], object]) -> None:
        def step(self: Pretrain, batch: Any, batch_idx: int) -> Any:
            if self.trainer.global_step == number:
                happens()
            return usual(self, batch, batch_idx)

        monkeypatch.setattr(Pretrain, "training_step", step)

    on_interrupt = signal.getsignal(signal.SIGINT)
    yield arrange
    signal.signal(signal.SIGINT, on_interrupt)  # which Lightning ignores after the first


def all_but_the_last_checkpoint() -> None:
    """As if the folder were deleted, and then the next checkpoint written."""
    last = Path("runs/x/checkpoints/last.ckpt").read_bytes()
    shutil.rmtree("runs/x")
    Path("runs/x/checkpoints").mkdir(parents=True)
    Path("runs/x/checkpoints/last.ckpt").write_bytes(last)


def test_a_run_whose_folder_is_deleted_says_what_is_lost(
    at_step: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    at_step(2, lambda: shutil.rmtree("runs/x"))
    assert main(RUN) == 1
    said = capsys.readouterr().err
    assert said.count("error: The folder runs/x is gone: it was deleted or moved while the run wrote to it") == 1
    assert "checkpoints in it are lost. Start the run again" in said
    assert "Traceback" not in said
    assert not Path("runs/x").exists()  # the name is free again


@pytest.mark.parametrize(("error", "code"), [(FileNotFoundError, 1), (KeyboardInterrupt, 130), (SIGTERMException, 143)])
def test_a_checkpoint_that_was_written_since_can_be_resumed(
    error: type[BaseException], code: int, at_step: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        all_but_the_last_checkpoint()
        raise error

    at_step(4, fail)
    assert main(RUN) == code
    said = capsys.readouterr().err
    if code == 1:
        assert "but runs/x/checkpoints/last.ckpt was written since. To continue from it" in said
    assert code == 143 or "lit-splitmask pretrain --name x --resume" in said
    at_step(-1, lambda: None)
    assert main(["pretrain", "--name", "x", "--resume"]) == 0
    assert Path("runs/x/backbone.safetensors").is_file()


def test_another_error_stays_what_it_is(at_step: Callable[..., None]) -> None:
    def fail() -> None:
        raise FileNotFoundError("another file")

    at_step(2, fail)
    with pytest.raises(FileNotFoundError, match="another file"):
        main(RUN)


def test_a_comparison_whose_folder_is_deleted_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^c/p/events.out is gone: c, or a part"), says_if_gone(Path("c")):
        Path("c/p/events.out").write_bytes(b"")
    for other in ("images/1.png", "."):
        with pytest.raises(FileNotFoundError), says_if_gone(Path("c")):
            raise FileNotFoundError(2, "No such file", other if other != "." else None)


def test_an_error_that_tensorboards_thread_raises_again_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    class _AsyncWriterThread(threading.Thread):
        def run(self) -> None:
            raise FileNotFoundError("events")

    class Other(_AsyncWriterThread):
        pass

    before = threading.excepthook
    try:
        quiet()
        for kind in (_AsyncWriterThread, Other):
            thread = kind()
            thread.start()
            thread.join()
    finally:
        threading.excepthook = before
    assert capsys.readouterr().err.count("FileNotFoundError: events") == 1
