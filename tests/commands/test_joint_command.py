"""Joint training through ``finetune --auxiliary``: the settings that are saved, resuming, testing and predicting."""

from pathlib import Path

import pytest
import torch
import yaml
from test_training_commands import FINETUNE_COMMAND, interrupt_at
from tiny_runs import same_tensors

from lit_splitmask.checkpoints import load_weights
from lit_splitmask.cli import main
from lit_splitmask.commands import recipe_choice
from lit_splitmask.modules import Classify

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on tiny runs

JOINT = [
    "--auxiliary",
    "MAE",
    "--auxiliary.decoder_dim=16",
    "--auxiliary.decoder_depth",
    "1",
    "--auxiliary.decoder_heads=2",
]
SHARES = ["--data.label_share=0.5", "--data.unlabelled_share=0.5"]


def test_a_joint_training_is_resumed_tested_and_predicted_with(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [*FINETUNE_COMMAND, "whole", *JOINT, *SHARES]
    assert main(command) == 0
    saved = yaml.safe_load(Path("runs/whole/config.yaml").read_text())
    assert saved["model"]["auxiliary"]["class_path"].endswith("MAE")
    assert saved["model"]["auxiliary"]["init_args"]["decoder_dim"] == 16
    assert saved["data"]["init_args"]["unlabelled_share"] == 0.5
    with monkeypatch.context() as patch:
        interrupt_at(patch, Classify, 4, RuntimeError("power cut"))
        with pytest.raises(RuntimeError, match="power cut"):
            main([*FINETUNE_COMMAND, "part", *JOINT, *SHARES])
    assert main(["finetune", "--name", "part", "--resume"]) == 0
    ours, theirs = (
        torch.load(f"runs/{name}/checkpoints/last.ckpt", weights_only=True)["state_dict"] for name in ("whole", "part")
    )
    assert same_tensors(ours, theirs)
    assert not any("auxiliary" in name for name in load_weights("runs/whole/classifier.safetensors").state)
    assert main(["predict", "--config", "runs/whole/predict.yaml", "--data.root", "shapes"]) == 0
    assert len(Path("predictions.csv").read_text().splitlines()) > 20


def test_the_auxiliary_of_an_earlier_configuration_is_read(work: Path) -> None:
    assert main([*FINETUNE_COMMAND, "old", "--auxiliary", "RelativeLocalisation"]) == 0
    path = Path("runs/old/config.yaml")
    text = path.read_text().replace("  auxiliary:", "  relative_localisation:").replace("  auxiliary_weight: 1.0\n", "")
    assert "relative_localisation:" in text
    Path("old.yaml").write_text(text)
    assert main(["finetune", "--config", "old.yaml", "--name", "again"]) == 0
    ours, theirs = (load_weights(f"runs/{name}/classifier.safetensors").state for name in ("old", "again"))
    assert same_tensors(ours, theirs)


@pytest.mark.parametrize(
    ("name", "auxiliary", "partner"),
    [
        ("finetune_cpu", "MAE", "joint_cpu"),
        ("finetune", "DINO", "joint"),
        ("finetune_few_cpu", "SelfTraining", "self_training_cpu"),
        ("finetune", "lit_splitmask.objectives.SelfTraining", "self_training"),
        ("finetune_tiny_images", "MAE", "finetune_tiny_images"),
    ],
)
def test_an_auxiliary_objective_chooses_the_recipe_of_joint_training(name: str, auxiliary: str, partner: str) -> None:
    assert recipe_choice.joint(recipe_choice.Choice(name, "because"), auxiliary).name == partner
