"""Learning rates by hand, and which parameters decay."""

import math
from typing import Any

import pytest
import torch
from reference.tiny import tiny_splitmask, tiny_vit

from lit_splitmask.errors import UserError
from lit_splitmask.optim import OptimConfig, batch_scale, build_optimizer, layer_of, lr_factor, parameter_groups


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.25),  # a warm-up of four steps rises by quarters
        (1, 0.5),
        (3, 1.0),
        (4, 1.0),  # the cosine starts at its top,
        (8, 0.55),  # is halfway between 1 and 0.1 in the middle of the remaining eight steps
        (6, 0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2),  # cos(π/4) after a quarter of them
        (12, 0.1),  # and ends at the smallest factor,
        (20, 0.1),  # where it stays
    ],
)
def test_the_rate_rises_linearly_and_falls_as_a_cosine(step: int, expected: float) -> None:
    assert lr_factor(step, total_steps=12, warmup_steps=4, min_factor=0.1) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.25), (3, 1.0), (4, 1.0), (6, 0.775), (8, 0.55), (12, 0.1), (20, 0.1)]
)
def test_the_polynomial_falls_in_a_straight_line(step: int, expected: float) -> None:
    found = lr_factor(step, total_steps=12, warmup_steps=4, min_factor=0.1, schedule="poly")
    assert found == pytest.approx(expected)


def test_the_optimizer_follows_the_schedule_of_the_recipe() -> None:
    for kind in ("cosine", "poly"):
        config = OptimConfig(lr=1.0, reference_batch=0, warmup=0.0, min_lr=0.0, schedule=kind)  # type: ignore[arg-type]
        optimizer, schedule = build_optimizer(
            tiny_vit().named_parameters(), config, batch_size=8, total_steps=8, depth=2
        )
        for _ in range(2):
            optimizer.step()
            schedule.step()
        expected = 0.75 if kind == "poly" else (1 + math.sqrt(0.5)) / 2
        assert schedule.get_last_lr()[0] == pytest.approx(expected)
    with pytest.raises(UserError, match=r"optim\.schedule is step"):
        OptimConfig(schedule="step")  # type: ignore[arg-type]


def test_without_warm_up_the_first_step_has_the_full_rate() -> None:
    assert lr_factor(0, total_steps=10, warmup_steps=0, min_factor=0.0) == 1


def test_a_run_of_warm_up_alone_does_not_divide_by_zero() -> None:
    assert lr_factor(1, total_steps=1, warmup_steps=1, min_factor=0.2) == pytest.approx(1.0)


def test_a_final_rate_above_the_peak_keeps_the_peak() -> None:
    config = OptimConfig(lr=1e-6, reference_batch=0, warmup=0.0, min_lr=1e-5)
    optimizer, schedule = build_optimizer(tiny_vit().named_parameters(), config, batch_size=8, total_steps=4, depth=2)
    for _ in range(4):
        assert schedule.get_last_lr()[0] == pytest.approx(1e-6)
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize(("batch_size", "expected"), [(2048, 1.0), (512, 0.5), (8192, 2.0), (1024, math.sqrt(0.5))])
def test_the_rate_scales_by_the_root_of_the_batch_size(batch_size: int, expected: float) -> None:
    assert batch_scale(OptimConfig(), batch_size) == pytest.approx(expected)
    assert batch_scale(OptimConfig(reference_batch=0), batch_size) == 1


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("patch_embed.proj.weight", 0),
        ("pos_embed", 0),
        ("cls_token", 0),
        ("blocks.0.attn.qkv.weight", 1),
        ("blocks.11.mlp.fc1.bias", 12),
        ("norm.weight", 13),
        ("fc_norm.bias", 13),
        ("head.weight", 13),
        ("backbone.blocks.3.norm1.weight", 4),
        ("objective.backbone.pos_embed", 0),
        ("objective.decoder.blocks.0.attn.qkv.weight", 13),
        ("decoder.pos_embed", 13),
        ("decoder.mask_token", 13),
    ],
)
def test_layers_count_from_the_embeddings_and_everything_after_the_blocks_is_the_last(name: str, layer: int) -> None:
    assert layer_of(name, depth=12) == layer


def decay_by_name(model: torch.nn.Module) -> dict[str, float]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model.named_parameters(), OptimConfig(weight_decay=0.05), lr=1.0, depth=2)
    return {names[id(parameter)]: group["weight_decay"] for group in groups for parameter in group["params"]}


def test_matrices_decay_and_biases_norms_and_positions_do_not() -> None:
    decays = decay_by_name(tiny_splitmask(tiny_vit(class_token=True)))
    matrices = {name for name, decay in decays.items() if decay}
    for name, decay in decays.items():
        if name.endswith(("bias", "pos_embed", "cls_token")) or "norm" in name:
            assert decay == 0, name
        else:
            assert decay == 0.05, name
    assert {"backbone.patch_embed.proj.weight", "backbone.blocks.0.attn.qkv.weight", "head.weight"} <= matrices


def test_positions_and_class_tokens_decay_on_request() -> None:
    model = tiny_splitmask(tiny_vit(class_token=True))
    groups = parameter_groups(model.named_parameters(), OptimConfig(decay_positions=True), lr=1.0, depth=2)
    decay = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    by_name = {name: decay[id(parameter)] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert by_name["backbone.pos_embed"] == by_name["backbone.cls_token"] == 0.05
    assert by_name["backbone.norm.weight"] == by_name["backbone.patch_embed.proj.bias"] == 0


@pytest.mark.parametrize("layer_decay", [1.0, 0.65])
@pytest.mark.parametrize("positions", ["learned", "sincos"])
def test_each_trainable_parameter_is_in_one_group_and_frozen_ones_in_none(positions: Any, layer_decay: float) -> None:
    model = tiny_splitmask(tiny_vit(positions=positions))
    groups = parameter_groups(model.named_parameters(), OptimConfig(layer_decay=layer_decay), lr=1.0, depth=2)
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    trainable = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == trainable


def test_each_layer_keeps_its_own_rate_while_the_schedule_runs() -> None:
    model = tiny_vit(num_classes=3)
    config = OptimConfig(lr=0.8, reference_batch=64, warmup=0.25, min_lr=0.08, layer_decay=0.5)
    optimizer, schedule = build_optimizer(model.named_parameters(), config, batch_size=16, total_steps=8, depth=2)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for step in range(8):
        factor = lr_factor(step, total_steps=8, warmup_steps=2, min_factor=0.1)
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                layer = layer_of(names[id(parameter)], depth=2)
                assert group["lr"] == pytest.approx(0.8 * 0.5 * factor * 0.5 ** (3 - layer))  # 0.5 = √(16/64)
        optimizer.step()
        schedule.step()


def test_the_recipe_reaches_the_optimizer() -> None:
    config = OptimConfig(beta1=0.8, beta2=0.98, weight_decay=0.3)
    optimizer, _ = build_optimizer(tiny_vit().named_parameters(), config, batch_size=8, total_steps=8, depth=2)
    assert optimizer.defaults["betas"] == (0.8, 0.98)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.3}
    assert all(group["betas"] == (0.8, 0.98) for group in optimizer.param_groups)


@pytest.mark.parametrize(
    "bad", [{"lr": 0.0}, {"lr": -1.0}, {"warmup": 1.0}, {"warmup": -0.1}, {"layer_decay": 0.0}, {"layer_decay": 1.1}]
)
def test_invalid_values_are_refused_with_their_name_and_value(bad: dict[str, float]) -> None:
    ((name, value),) = bad.items()
    with pytest.raises(UserError, match=f"optim.{name} is {value}"):
        OptimConfig(**bad)
