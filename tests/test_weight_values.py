"""Values that no network can compute with are refused with their reason, and equal weights are equal files."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load as from_bytes

from lit_splitmask.checkpoints import load_weights, read_safetensors, save_backbone
from lit_splitmask.errors import UserError
from lit_splitmask.models import ViT, ViTConfig
from lit_splitmask.pickles import reason

SHAPE: dict[str, Any] = {"embed_dim": 32, "depth": 1, "num_heads": 2, "patch_size": 8, "image_size": 32}


def write(path: Path, change: Any = None, **info: Any) -> Path:
    """Writes a backbone of which one tensor is changed."""
    vit = ViT(ViTConfig(**SHAPE))
    parts = {} if change is None else {"blocks.0.mlp.fc1.weight": change(vit.blocks[0].mlp.fc1.weight.detach())}
    save_backbone(path, vit, parts=parts, **info)
    return path


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_with_nan_or_infinite_values_are_refused(value: float, tmp_path: Path) -> None:
    path = write(tmp_path / "w.safetensors", lambda weight: weight.where(weight < weight.max(), value))
    with pytest.raises(UserError, match=r"NaN or infinite values in blocks\.0\.mlp\.fc1\.weight.*earlier checkpoint"):
        load_weights(path)


@pytest.mark.parametrize("kind", [torch.bool, torch.int64, torch.complex64])
def test_weights_that_are_no_floats_are_refused(kind: torch.dtype, tmp_path: Path) -> None:
    path = write(tmp_path / "w.safetensors", lambda weight: weight.to(kind))
    with pytest.raises(UserError, match=str(kind).removeprefix("torch.")):
        load_weights(path)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_floats_are_taken(kind: torch.dtype, tmp_path: Path) -> None:
    assert load_weights(write(tmp_path / "w.safetensors", lambda weight: weight.to(kind))).info


@pytest.mark.parametrize(
    ("mean", "std"), [([0.5] * 3, [0.2, 0.0, 0.2]), ([0.5] * 3, [-0.2] * 3), ([float("nan")] * 3, [0.2] * 3)]
)
def test_weights_with_impossible_pixel_statistics_are_refused(mean: Any, std: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "w.safetensors", pixel_mean=mean, pixel_std=std)
    with pytest.raises(UserError, match=r"pixel_(mean|std) is"):
        load_weights(path)


@pytest.mark.parametrize("name", ["num_heads", "depth", "embed_dim"])
def test_a_backbone_without_heads_depth_or_width_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"{name}=0 is impossible"):
        ViT(ViTConfig(**{**SHAPE, name: 0}))


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("by_torch", [True, False])
def test_torchs_advice_to_load_it_anyway_is_not_passed_on(by_torch: bool, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    if by_torch:
        torch.save({"state_dict": Trap()}, path)
    else:
        path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UserError) as caught:
        load_weights(path)
    assert "weights_only" not in str(caught.value)
    assert "succeed" not in str(caught.value)
    assert ("posix.system" if by_torch else "code to be run") in str(caught.value)


def test_the_reason_of_another_error_is_its_first_line() -> None:
    assert reason(RuntimeError("it is short\nby a byte")) == "it is short"
    assert reason(EOFError()) == "EOFError"


WRITE = """
import sys, torch
from lit_splitmask.checkpoints import write_safetensors
tensors = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.ones(3, dtype=torch.uint8)}
write_safetensors(sys.argv[1], tensors, {name: "é" + name for name in "qwertyuiop"})
"""


def test_equal_weights_are_equal_files_in_every_process(tmp_path: Path) -> None:
    files = []
    for number in range(3):
        path = tmp_path / f"{number}.safetensors"
        subprocess.run([sys.executable, "-c", WRITE, str(path)], check=True)
        files.append(path.read_bytes())
    assert files[0] == files[1] == files[2]
    header = json.loads(files[0][8 : 8 + int.from_bytes(files[0][:8], "little")])
    assert list(header["__metadata__"]) == sorted("qwertyuiop")
    assert int.from_bytes(files[0][:8], "little") % 8 == 0
    tensors, metadata = read_safetensors(tmp_path / "0.safetensors")
    assert torch.equal(tensors["b"], torch.arange(6.0).reshape(2, 3))
    assert metadata["q"] == "éq"
    assert from_bytes(files[0]).keys() == {"a", "b"}
