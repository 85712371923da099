"""Weights on the way of a training."""

from pathlib import Path

import pytest
import torch
from tiny_runs import image_data, one_thread, pretrain_module, tiny_trainer  # noqa: F401

from lit_splitmask.callbacks import ExportAlong
from lit_splitmask.checkpoints import load_weights
from lit_splitmask.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore")  # of tiny trainings: short logs, no workers


def test_weights_are_written_after_parts_of_the_steps(class_folder, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    module = pretrain_module()
    tiny_trainer(tmp_path, callbacks=[ExportAlong([0.3, 0.5, 1.0])]).fit(module, image_data(class_folder(per_class=6)))
    files = {path.name: load_weights(str(path)) for path in tmp_path.glob("*.safetensors")}
    assert {name: weights.info["step"] for name, weights in files.items()} == {
        "backbone-at-0.3.safetensors": 2,  # of 6 steps
        "backbone-at-0.5.safetensors": 3,
        "backbone-at-1.safetensors": 6,
    }
    key = "patch_embed.proj.weight"
    last = module.vit.state_dict()[key]
    assert torch.equal(files["backbone-at-1.safetensors"].state[key], last)
    assert not torch.equal(files["backbone-at-0.3.safetensors"].state[key], last)


@pytest.mark.parametrize("shares", [[], [0.0], [0.5, 1.5], [float("nan")]])
def test_parts_outside_the_training_are_refused(shares: list[float]) -> None:
    with pytest.raises(UserError, match="above 0 and up to 1"):
        ExportAlong(shares)
