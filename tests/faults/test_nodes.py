"""Two nodes, simulated by two ``torchrun`` agents on loopback, train to the weights of one process, also with a resume."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from faulty_runs import first_command, write_images
from safetensors.torch import load_file
from tiny_runs import PRETRAIN, one_thread, recipe  # noqa: F401

from lit_splitmask.cli import main

pytestmark = pytest.mark.slow

SCRIPT = """
import os, sys
from lit_splitmask.modules.base import TrainModule
log_training = TrainModule.log_training

def logged(self, *arguments, **settings):
    if os.environ.get("DIES") == os.environ["RANK"] and self.trainer.global_step == 4:
        os._exit(3)
    log_training(self, *arguments, **settings)

TrainModule.log_training = logged
from lit_splitmask.cli import main
sys.exit(main())
"""


def run_on_two_nodes(words: list[str], place: Path, **environment: str) -> list[tuple[int, str, str]]:
    """Runs a command with one process on each of two nodes; exit code, output and errors of each node's ``torchrun``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (place / "node.py").write_text(SCRIPT)
    start = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nnodes=2",
        "--nproc-per-node=1",
        "--master-addr=127.0.0.1",
    ]
    quick = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": os.pathsep.join(sys.path)}
    nodes: list[Any] = [
        subprocess.Popen(
            [*start, f"--master-port={port}", f"--node-rank={rank}", "node.py", *words],
            cwd=place,
            env={**os.environ, **quick, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    said = [node.communicate(timeout=300) for node in nodes]
    return [(node.returncode, *outputs) for node, outputs in zip(nodes, said, strict=True)]


def weights(run: Path) -> dict[str, torch.Tensor]:
    """The weights after the last step, the fitted words and the exported backbone.

    Without the keys' bias: softmax takes it away, so its gradient is rounding errors, of which AdamW makes whole steps.
    """
    state: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    everything = state | load_file(run / "backbone.safetensors") | load_file(run / "codebook.safetensors")
    for name, value in everything.items():
        if name.endswith("attn.qkv.bias"):
            query, _, values = value.chunk(3)
            everything[name] = torch.cat([query, values])
    return everything


def test_two_nodes_that_lose_one_and_resume_have_the_weights_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "shapes")
    recipe(Path("pretrain.yaml"), PRETRAIN, budget={"steps": 9}, num_epochs=3, index_dir="data")
    same = ["--model.backbone.drop_path=0"]  # which each process draws for itself
    assert main([*first_command("pretrain", "one"), *same]) == 0

    command = [*first_command("pretrain", "two"), *same]
    died = run_on_two_nodes(command, tmp_path, DIES="1")
    assert [code for code, *_ in died] == [1, 1]
    assert "Another process of this run has ended" in died[0][2]
    assert torch.load("runs/two/checkpoints/last.ckpt", weights_only=True)["global_step"] == 3

    (code, printed, said), (other_code, *other) = run_on_two_nodes(["pretrain", "--name", "two", "--resume"], tmp_path)
    assert (code, other_code) == (0, 0), said
    assert "Wrote backbone.safetensors," in printed
    assert "".join(other).strip() == ""
    expected, found = weights(Path("runs/one")), weights(Path("runs/two"))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
    assert sorted(path.name for path in Path("runs").iterdir()) == ["one", "two"]
