"""Runs the commands of a row, each once and in its own process, and reads what they measured."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lit_splitmask.commands.reproduce.scores import Score, read_record, scores_of
from lit_splitmask.commands.reproduce.stages import Setting, Stage, stages_of
from lit_splitmask.commands.run_folder import RunFolder
from lit_splitmask.datamodules.paper_rows import Row
from lit_splitmask.errors import UserError
from lit_splitmask.files import write_json
from lit_splitmask.units import duration

Measured = dict[str, dict[int, Score]]
"""What was measured, by score and seed."""


def run_row(row: Row, seeds: Sequence[int], setting: Setting) -> Measured:
    """Runs the unfinished commands of a row, and returns what was measured.

    Args:
        row: A row that can be run.
        seeds: Seeds, one after the other.
        setting: Where the files are, and how the row is run.

    Raises:
        UserError: The folder holds a training with other settings.
        SystemExit: A command failed, or was stopped by a signal.
    """
    measured: Measured = {score: {} for score in row.paper}
    for seed in seeds:
        stages = stages_of(row, seed, setting)
        for stage in stages:
            run_stage(stage, Path(setting.out))
        for stage in stages:
            for score, value in scores_of(stage, Path(setting.out)).items():
                measured[score][seed] = value
    return measured


def run_stage(stage: Stage, out: Path) -> None:
    """Runs a command unless it is finished; continues an interrupted training.

    Raises:
        UserError: The folder holds a training with other settings, or its record is damaged.
        SystemExit: The command failed, or was stopped by a signal.
    """
    record, folder = out / f"{stage.name}.json", out / stage.name
    known: dict[str, Any] = {}
    if record.is_file() and folder.is_dir():  # a user who deletes the folder wants to begin again
        known = read_record(record, f"delete it; if {folder} is of these settings, the same command continues it")
    if known and known["arguments"] != list(stage.arguments):
        raise UserError(
            f"{folder} holds a training with other settings ({' '.join(known['arguments'])}) than these "
            f"({' '.join(stage.arguments)}): give another --out, or delete it."
        )
    if known.get("finished"):
        print(f"— finished already: {folder}", flush=True)
        return
    arguments = list(stage.arguments)
    if stage.command == "probe":
        shutil.rmtree(folder, ignore_errors=True)  # an unfinished one starts over
    elif any(RunFolder(folder).checkpoints.glob("*.ckpt")):
        arguments = [f"--runs_dir={out}", f"--name={stage.name}", "--resume"]
    entry: dict[str, Any] = {"command": stage.command, "arguments": list(stage.arguments), "finished": False}
    write_json(record, entry)
    print(f"— {stage}", flush=True)
    start = time.monotonic()
    code = run_command([stage.command, *arguments])
    if code:
        print(
            f"The command above ended with code {code}. The same reproduce command continues from there.",
            file=sys.stderr,
        )
        raise SystemExit(code)
    write_json(record, {**entry, "finished": True})
    print(f"  {duration(time.monotonic() - start)}", flush=True)


def run_command(arguments: list[str]) -> int:
    """Runs a command of this program in its own process, which may start others, and passes SIGTERM on to it.

    Args:
        arguments: The command and its options.

    Returns:
        Its exit code; 128 and the number of the signal if one ended it.
    """
    with subprocess.Popen([sys.executable, "-m", "lit_splitmask.cli", *arguments]) as process:
        before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        try:
            while True:
                try:
                    code = process.wait()
                except KeyboardInterrupt:
                    continue  # the terminal sent it to that process too, which ends by itself
                return code if code >= 0 else 128 - code
        finally:
            signal.signal(signal.SIGTERM, before)
