"""What a shell completes."""

import shutil
import subprocess
from pathlib import Path

import pytest

from lit_splitmask.cli import COMMANDS, main
from lit_splitmask.commands.help import LIGHTNING_COMMANDS, documented

shtab = pytest.importorskip("shtab", reason="needs the extra completion")


@pytest.fixture
def script(capsys: pytest.CaptureFixture[str]) -> str:
    """The script for bash."""
    assert main(["completion", "bash"]) == 0
    return capsys.readouterr().out


def completed(script: str, line: str, tmp_path: Path) -> set[str]:
    """What bash offers for the last word of a command line."""
    words = line.split(" ")
    (tmp_path / "completion.sh").write_text(
        f'{script}\nCOMP_WORDS=({" ".join(words[:-1])} "{words[-1]}")\nCOMP_CWORD={len(words) - 1}\n'
        '_shtab_lit_splitmask\nprintf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    bash = shutil.which("bash")
    assert bash is not None
    run = subprocess.run(
        [bash, "--norc", "completion.sh"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=30
    )
    return set(run.stdout.split())


def test_every_command_is_completed(script: str, tmp_path: Path) -> None:
    assert set(COMMANDS) == {*documented(), *LIGHTNING_COMMANDS}
    assert completed(script, "lit-splitmask ", tmp_path) >= set(COMMANDS)
    assert completed(script, "lit-splitmask pre", tmp_path) == {"pretrain", "predict"}


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("plan --data.r", {"--data.root"}),
        (
            "pretrain --data.b",
            {"--data.batch_size", "--data.budget.passes", "--data.budget.images", "--data.budget.steps"},
        ),
        ("pretrain --recipe simmim", {"simmim", "simmim_cpu"}),
        ("finetune --task ", {"classify", "regress", "segment", "detect"}),
        ("export --format ", {"timm", "onnx", "torch-export"}),
        ("fit --data.image", {"--data.image_size"}),
        ("probe --weights back", {"backbone.safetensors"}),
    ],
)
def test_options_values_and_files_are_completed(script: str, line: str, offered: set[str], tmp_path: Path) -> None:
    (tmp_path / "backbone.safetensors").touch()
    assert completed(script, f"lit-splitmask {line}", tmp_path) == offered


@pytest.mark.parametrize("arguments", [[], ["csh"], ["bash", "zsh"]])
def test_one_known_shell_is_asked_for(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", *arguments]) == 1
    assert "takes one shell" in capsys.readouterr().err
