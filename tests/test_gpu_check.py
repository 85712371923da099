"""The one call that does all checks on a GPU: what it says of a check that fails or hangs, and how long it may take."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import gpu_check


def test_all_checks_together_end_within_ten_minutes() -> None:
    assert sum(check.limit for check in gpu_check.CHECKS.values()) <= gpu_check.TEN_MINUTES


def test_a_check_passes_or_fails_and_its_output_is_kept() -> None:
    ends = {"print('done')": "passed", "print('bad', flush=True); raise SystemExit(3)": "failed (3)"}
    for program, outcome in ends.items():
        found, _, printed = gpu_check.run(gpu_check.Check(("-c", program), 30))
        assert found == outcome
        assert printed.strip() in ("done", "bad")


HANGS = """
import subprocess, sys, time
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]).pid)
time.sleep(60)
"""


def test_of_a_stopped_check_nothing_goes_on_and_the_output_is_kept() -> None:
    outcome, _, printed = gpu_check.run(gpu_check.Check(("-c", HANGS), 3.0))
    assert outcome == "stopped after 3 s"
    status = Path(f"/proc/{int(printed)}/stat")
    assert not status.exists() or status.read_text().split()[2] == "Z"  # gone, or dead and not yet waited for


def test_without_a_gpu_nothing_is_checked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_check.py"])
    assert gpu_check.main() == 2
    assert "No GPU" in capsys.readouterr().out
