"""``Pretrain`` that starts from weights."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny_runs import BACKBONE, same_tensors

from lit_splitmask.checkpoints import save_backbone
from lit_splitmask.errors import UserError
from lit_splitmask.models import ViT, ViTConfig
from lit_splitmask.modules import Pretrain
from lit_splitmask.objectives import DINO, MAE, BEiT, InstanceDiscrimination, MoCoV3, SimMIM, SplitMask, Supervised

SHAPE = ViTConfig(**{**BACKBONE, "image_size": 32, "num_heads": 4})
OBJECTIVES = [
    SplitMask,
    BEiT,
    partial(MAE, decoder_dim=16, decoder_depth=1, decoder_heads=2),
    SimMIM,
    InstanceDiscrimination,
    partial(DINO, num_prototypes=16, hidden_dim=16, bottleneck_dim=8),
    partial(MoCoV3, hidden_dim=16, output_dim=8),
    Supervised,
]


@pytest.fixture
def vit() -> ViT:
    torch.manual_seed(1)
    return ViT(SHAPE)


@pytest.fixture
def file(vit: ViT, tmp_path: Path) -> str:
    path = tmp_path / "backbone.safetensors"
    save_backbone(path, vit, pixel_mean=[0.1, 0.2, 0.3], pixel_std=[0.4, 0.5, 0.6])
    return str(path)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: getattr(o, "func", o).__name__)
def test_the_backbone_and_its_teacher_start_from_the_weights(objective: Any, vit: ViT, file: str) -> None:
    module = Pretrain(objective, weights=file)
    assert same_tensors(module.objective.backbone.state_dict(), vit.state_dict())
    assert same_tensors(module.vit.state_dict(), vit.state_dict())
    teacher = getattr(module.objective, "teacher_backbone", None)
    assert teacher is None or same_tensors(teacher.network.state_dict(), vit.state_dict())
    assert module.objective.backbone.config.num_heads == 4
    assert module.objective.backbone.config.drop_path == 0.1
    assert module.pixel_mean.tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert module.has_statistics


def test_positions_are_resized_to_another_image_size(file: str, vit: ViT) -> None:
    shape = ViTConfig(**{**BACKBONE, "image_size": 48, "num_heads": 4})
    module = Pretrain(weights=file, backbone=shape)
    assert module.vit.pos_embed.shape == (1, 36, 32)
    assert torch.equal(module.vit.blocks[0].attn.qkv.weight, vit.blocks[0].attn.qkv.weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"depth": 3}, "depth"), ({"patch_size": 4}, "patch"), ({"num_heads": 2}, "4 attention heads")],
)
def test_a_shape_that_contradicts_the_weights_is_refused(file: str, change: dict[str, Any], message: str) -> None:
    shape = ViTConfig(**{**BACKBONE, "image_size": 32, "num_heads": 4, **change})
    with pytest.raises(UserError, match=message):
        Pretrain(weights=file, backbone=shape)


def test_a_file_that_holds_no_vit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(UserError, match="no Vision Transformer"):
        Pretrain(weights=str(path))
