"""Self-training equals its formula, on images without labels only, and its teacher follows the classifier."""

from pathlib import Path
from typing import Any

import pytest
import torch
from reference.tiny import generator

from lit_splitmask.errors import UserError
from lit_splitmask.mixing import Mixing
from lit_splitmask.models.vit import ViT, ViTConfig
from lit_splitmask.modules import Pretrain
from lit_splitmask.objectives import SelfTraining

SHAPE = ViTConfig(size="tiny", embed_dim=32, depth=1, num_heads=2, patch_size=8, image_size=32)
LABELS = torch.tensor([2, -1, -1, 0, -1])


def self_training(**settings: Any) -> SelfTraining:
    """An objective whose classifier and teacher differ, as after some steps."""
    torch.manual_seed(0)
    model = SelfTraining(ViT(SHAPE, num_classes=3), **settings)
    for network in (model.backbone, model.teacher.network):
        torch.nn.init.normal_(network.get_parameter("head.weight"))
    return model


def batch_of(model: SelfTraining, labels: torch.Tensor = LABELS) -> dict[str, Any]:
    """A batch that is mixed as in joint training."""
    images = torch.randn(len(labels), 3, 32, 32, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(2)
    mixed, sources = Mixing(3, mixup=0.8, cutmix=0.0, label_smoothing=0.1).mix_apart(images, labels >= 0)
    return {
        "images": mixed,
        "unmixed": images,
        "sources": sources,
        "labels": labels,
        "logits": model.backbone(mixed),
    }


def test_the_loss_is_the_cross_entropy_with_the_mixture_of_the_teachers_probabilities() -> None:
    model = self_training(ramp_share=0.5)
    model.progress = 0.2
    batch = batch_of(model)
    assert not torch.equal(batch["images"], batch["unmixed"])
    losses = model(batch, generator())
    alone, total, confidence = [1, 2, 4], 0.0, 0.0
    for row in alone:
        log_probabilities = model.backbone(batch["images"][row : row + 1])[0].log_softmax(0)
        for source in alone:
            said = model.teacher.network(batch["unmixed"][source : source + 1])[0].softmax(0)
            for k in range(3):
                total -= float((batch["sources"][row, source] * said[k] * log_probabilities[k]).detach())
        confidence += float(model.teacher.network(batch["unmixed"][row : row + 1])[0].softmax(0).max())
    assert float(losses["self_training"]) == pytest.approx(total / 3, rel=1e-4)
    assert float(losses["loss"]) == pytest.approx(0.4 * total / 3, rel=1e-4)
    assert float(losses["confidence"]) == pytest.approx(confidence / 3, rel=1e-4)
    losses["loss"].backward()
    assert model.backbone.get_parameter("head.weight").grad is not None
    assert all(weight.grad is None for weight in model.teacher.parameters())


@pytest.mark.parametrize(("progress", "share", "weight"), [(0.0, 0.25, 0.0), (0.9, 0.25, 1.0), (0.0, 0.0, 1.0)])
def test_the_weight_rises_to_one(progress: float, share: float, weight: float) -> None:
    model = self_training(ramp_share=share)
    model.progress = progress
    losses = model(batch_of(model), generator())
    torch.testing.assert_close(losses["loss"], weight * losses["self_training"])


def test_a_batch_in_which_all_images_have_labels_adds_nothing_but_a_gradient_of_zero() -> None:
    model = self_training(ramp_share=0.0)
    losses = model(batch_of(model, torch.tensor([0, 1, 2])), generator())
    losses["loss"].backward()
    gradient = model.backbone.get_parameter("head.weight").grad
    assert float(losses["loss"]) == 0
    assert gradient is not None
    assert not gradient.any()


def test_the_teacher_is_the_average_of_all_steps_and_then_the_moving_average() -> None:
    model = self_training(momentum=0.75)
    weight = model.backbone.get_parameter("head.bias")
    expected = 0.0
    for step in range(1, 8):
        with torch.no_grad():
            weight.fill_(step)
        model.after_step(step / 8)
        expected = sum(range(step + 1)) / (step + 1) if step < 4 else 0.75 * expected + 0.25 * step
        torch.testing.assert_close(model.teacher.network.get_parameter("head.bias"), torch.full((3,), expected))


def test_it_needs_a_classifier(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="finetune --auxiliary SelfTraining"):
        Pretrain(SelfTraining, backbone=SHAPE)
    model = self_training()
    with pytest.raises(UserError, match="there are none"):
        model({"images": torch.zeros(2, 3, 32, 32), "labels": torch.tensor([0, -1])}, generator())
    with pytest.raises(UserError, match=r"momentum is 1\.5"):
        self_training(momentum=1.5)
