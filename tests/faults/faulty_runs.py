"""Commands in processes of their own, which can be killed, with a small disk or with temporary files on another one."""

import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from tiny_runs import FINETUNE, PRETRAIN, recipe

import lit_splitmask.callbacks as callbacks
from lit_splitmask.callbacks import whole_checkpoints
from lit_splitmask.cli import main

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["lit_splitmask.commands.pretrain", "lit_splitmask.commands.compare.command"])

LONG = ["--data.budget.steps=100000", "--data.num_epochs=1"]
"""More steps than a test waits for, in one epoch, at whose end a checkpoint would be written."""

OTHER_DISK = Path("/dev/shm")
"""Another file system than that of the runs, on Linux."""

FILE_EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.link", "os.truncate")


@dataclass(frozen=True)
class Fault:
    """What goes wrong in a process.

    Attributes:
        event: The number of the file event in the runs folder at which it is killed; None for never.
        temporary: The folder of temporary files; None for the usual one.
        plain: Whether Lightning's own class writes the checkpoints, to compare with.
    """

    event: int | None = None
    temporary: Path | None = None
    plain: bool = False


def run(arguments: list[str], folder: Path, log: Path, fault: Fault) -> None:
    """What a process does: runs a command as the shell would, in ``folder``, and writes its output to ``log``."""
    os.chdir(folder)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    torch.set_num_threads(1)
    if fault.temporary is not None:
        tempfile.tempdir = str(fault.temporary)
    if fault.plain:
        ours = whole_checkpoints.write_whole_checkpoints
        for module in list(sys.modules.values()):
            if getattr(module, "write_whole_checkpoints", None) is ours:
                module.write_whole_checkpoints = lambda trainer: None  # type: ignore[attr-defined]
    callbacks.OverfitAwareCheckpoint.__init__.__kwdefaults__["most_cost"] = 1e9  # measures in a short run too
    if fault.event is not None:
        _kill_at(fault.event)
    sys.argv = ["lit-splitmask", *arguments]
    sys.exit(main())


def _kill_at(event: int) -> None:
    """Kills this process at a file event in the runs folder, counted from 1."""
    seen = 0

    def count(name: str, values: tuple[Any, ...]) -> None:
        nonlocal seen
        if name in FILE_EVENTS and "runs" in str(values[0]):
            seen += 1
            if seen == event:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def start(arguments: list[str], folder: Path, fault: Fault = Fault()) -> Any:
    """Starts a command; its output is added to ``log.txt``."""
    process = PROCESSES.Process(target=run, args=(arguments, folder, folder / "log.txt", fault))
    process.start()
    return process


def finish(process: Any, seconds: float = 300) -> int:
    """Waits for a process; its exit code, which is negative for a signal."""
    process.join(seconds)
    assert process.exitcode is not None, "the process hangs"
    return int(process.exitcode)


def call(arguments: list[str], folder: Path, fault: Fault = Fault()) -> int:
    """Runs a command to its end."""
    return finish(start(arguments, folder, fault))


def kill_after(process: Any, seconds: float) -> None:
    """Kills a process after a time, unless it ends before."""
    process.join(seconds)
    with suppress(ProcessLookupError):
        process.kill()
    process.join()


def wait_for(happens: Any, seconds: float = 60) -> None:
    """Waits until a function returns something true."""
    until = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.01)


def write_images(root: Path) -> None:
    """Writes eight images of smooth noise into each of three class folders."""
    generator = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        (root / name).mkdir(parents=True)
        for number in range(8):
            noise = Image.fromarray(generator.integers(0, 256, (6, 6, 3), dtype=np.uint8))
            noise.resize((40, 48)).save(root / name / f"{number}.png")


def write_recipes(folder: Path) -> None:
    """Writes ``pretrain.yaml`` and ``finetune.yaml`` of 12 steps in four epochs, and ``compare.yaml`` of a few steps."""
    longer: dict[str, Any] = {"budget": {"steps": 12}, "num_epochs": 4, "index_dir": "data"}
    recipe(folder / "pretrain.yaml", PRETRAIN, **longer)
    recipe(folder / "finetune.yaml", FINETUNE, **longer)
    grid = [{"model.optim.lr": 1e-3}]
    parts: dict[str, Any] = {"grid": grid}
    for name, settings in (("pretrain", PRETRAIN), ("finetune", FINETUNE)):
        data = {**settings["data"]["init_args"], "budget": {"passes": 3.0}, "num_epochs": 3}
        parts[name] = {**settings, "data": {**settings["data"], "init_args": data}}
    (folder / "compare.yaml").write_text(yaml.safe_dump(parts))


def first_command(command: str, name: str) -> list[str]:
    """The command that starts a run."""
    images = ["--data.root", "shapes", "--recipe", f"{command}.yaml"]
    if command == "compare":
        return ["compare", *images, "--out", f"runs/{name}", "--seeds", "1", "--equal_time", "false"]
    return [command, *images, "--name", name]


def next_command(command: str, name: str, folder: Path) -> list[str]:
    """The command that goes on with it after a kill."""
    if command == "compare" or not (folder / "runs" / name / "config.yaml").is_file():
        return first_command(command, name)
    return [command, "--name", name, "--resume"]


def outcome(command: str, run: Path) -> Any:
    """What a finished run must have in common with an uninterrupted one, bit for bit."""
    if command == "pretrain":
        selection = json.loads((run / "checkpoints" / "selection.json").read_text())
        kept = sorted(path.name for path in (run / "checkpoints").glob("*.ckpt"))
        return (run / "backbone.safetensors").read_bytes(), selection["history"], selection["best_step"], kept
    if command == "finetune":
        test = json.loads((run / "test.json").read_text())
        return (run / "classifier.safetensors").read_bytes(), test["scores"], test["confusion"]
    (result,) = json.loads((run / "comparison.json").read_text())["results"]
    weights = (run / "pretrain-seed0" / "backbone.safetensors").read_bytes()
    return weights, [(arm["name"], arm["accuracy"], arm["setting"]) for arm in result["arms"]]


def broken_checkpoints(folder: Path) -> list[str]:
    """Names of the checkpoints below a folder that cannot be loaded."""
    broken = []
    for path in sorted(folder.rglob("*.ckpt")):
        try:
            torch.load(path, weights_only=True)
        except Exception:  # whatever torch raises for a damaged file
            broken.append(path.name)
    return broken


def steps_done(run: Path) -> int:
    """The steps in a run's metrics."""
    metrics = run / "metrics.csv"
    return len(metrics.read_text().splitlines()) if metrics.is_file() else 0
