"""BEiT, MAE, MoCo v3, DINO, supervised training: equal to their papers' formulas, and blind to what they must not see."""

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from reference.methods import (
    beit_in_loops,
    dino_in_loops,
    mae_in_loops,
    mocov3_in_loops,
    moved_along_half_a_cosine,
)
from reference.tiny import assert_same_gradients, blanked, generator, tiny_batch, tiny_tokenizer, tiny_vit
from reference.tiny_methods import METHODS, SHAPES, batch_of, beit, dino, mae, mocov3, supervised

from lit_splitmask.errors import UserError
from lit_splitmask.masking import UniformMasking, hidden_from
from lit_splitmask.models.teacher import Teacher
from lit_splitmask.objectives import DINO, MAE, BEiT, MoCoV3, Objective, RelativeLocalisation, Supervised


def different_teacher(model: Any) -> Any:
    """The teacher is moved away, so that student and teacher cannot be taken for each other."""
    torch.manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "teacher" in name:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_beit_is_its_paper(shape: dict[str, Any]) -> None:
    model = beit(**shape)
    batch = batch_of(image_size=model.backbone.config.image_size)
    keep = model.masking.visible(4, model.backbone.grid, generator())
    loss = model(batch, generator())["loss"]
    exact = beit_in_loops(model, batch["images"], model.tokenizer(batch["token_view"]), keep)
    torch.testing.assert_close(loss, exact, rtol=1e-5, atol=1e-5)
    assert_same_gradients(model, loss, exact)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_mae_is_its_paper(shape: dict[str, Any]) -> None:
    model = mae(**shape)
    batch = batch_of(image_size=model.backbone.config.image_size)
    keep = model.masking.visible(4, model.backbone.grid, generator())
    loss = model(batch, generator())["loss"]
    exact = mae_in_loops(model, batch["images"], keep)
    torch.testing.assert_close(loss, exact, rtol=1e-5, atol=1e-5)
    assert_same_gradients(model, loss, exact)


def test_mae_predicts_plain_pixels_on_request() -> None:
    images = batch_of()["images"]
    plain_mae = MAE(tiny_vit(), decoder_dim=16, decoder_depth=2, decoder_heads=2, normalise_targets=False)
    plain, standardised = plain_mae.targets(images), mae().targets(images)
    size = mae().backbone.config.patch_size
    torch.testing.assert_close(plain[1, 1].reshape(3, size, size), images[1, :, :size, size : 2 * size])
    expected = (plain - plain.mean(dim=-1, keepdim=True)) / plain.std(dim=-1, keepdim=True)
    torch.testing.assert_close(standardised, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_mocov3_is_its_paper(shape: dict[str, Any]) -> None:
    model = different_teacher(mocov3(**shape))
    batch = batch_of(6, model.backbone.config.image_size)
    other = copy.deepcopy(model)  # the statistics of batch norms move
    loss, exact = model(batch, generator())["loss"], mocov3_in_loops(other, *batch["crops"])
    torch.testing.assert_close(loss, exact, rtol=1e-4, atol=1e-5)
    assert_same_gradients(model, loss, exact, other)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_dino_is_its_paper(shape: dict[str, Any]) -> None:
    model = different_teacher(dino(**shape, teacher_temperature=0.07, warmup_share=0.5, norm_last_layer=False))
    model.progress = 0.25
    model.centre.copy_(torch.linspace(-0.1, 0.1, 24))
    batch = batch_of(3, model.backbone.config.image_size, num_crops=4)
    exact, centre = dino_in_loops(model, batch["crops"], temperature=0.055)  # half-way from 0.04 to 0.07
    loss = model(batch, generator())["loss"]
    torch.testing.assert_close(loss, exact, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.centre, centre, rtol=1e-4, atol=1e-6)
    assert_same_gradients(model, loss, exact)


def test_local_crops_of_another_size_go_through_the_student_alone() -> None:
    model, batch = dino(), batch_of(3)
    local = tiny_batch(3, 16, seed=9)["images"]
    alone = torch.stack([model.backbone.pooled(local[n : n + 1])[0] for n in range(3)])
    together = model._pooled([*batch["crops"], local, local])
    assert len(together) == 4
    torch.testing.assert_close(together[2], alone, rtol=1e-5, atol=1e-5)
    seen: list[torch.Size] = []
    hook = model.kept.patch_embed.proj.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape))
    model({**batch, "crops": [*batch["crops"], local]}, generator())
    hook.remove()
    assert [shape[-1] for shape in seen] == [32, 32]


@pytest.mark.parametrize("steps", [1, 4])
def test_teachers_follow_by_an_average_along_half_a_cosine(steps: int) -> None:
    for model in (mocov3(), dino()):
        student = model.backbone.blocks[0].mlp.fc1.weight
        teacher = model.teacher_backbone.network.blocks[0].mlp.fc1.weight
        start = 0.99 if isinstance(model, MoCoV3) else 0.996
        expected = teacher.clone()
        for step in range(steps):
            with torch.no_grad():
                student.add_(torch.full_like(student, 0.1 * (step + 1)))
            model.progress = step / steps
            progress = (step + 1) / steps if isinstance(model, MoCoV3) else step / steps
            model.after_step((step + 1) / steps)
            momentum = moved_along_half_a_cosine(start, progress)
            expected = momentum * expected + (1 - momentum) * student.detach()
            torch.testing.assert_close(teacher.detach(), expected.detach(), rtol=1e-5, atol=1e-6)


def test_prototypes_are_unit_vectors_or_learn_their_lengths() -> None:
    for norm_last_layer in (True, False):
        head = dino(norm_last_layer=norm_last_layer).head
        assert head.lengths.requires_grad is not norm_last_layer
        rows = torch.randn(5, head.mlp[0].in_features)
        unit = torch.nn.functional.normalize(head.prototypes, dim=1)
        embedded = torch.nn.functional.normalize(head.mlp(rows), dim=1)
        torch.testing.assert_close(head(rows), embedded @ unit.t(), rtol=1e-4, atol=1e-5)


def test_temperatures_are_those_published() -> None:
    assert MoCoV3(tiny_vit(), hidden_dim=8, output_dim=4).temperature == 0.2
    assert dino().student_temperature == 0.1


def test_schedules_have_their_values_by_hand() -> None:
    model = dino(teacher_temperature=0.07, warmup_share=0.1)
    for progress, temperature in ((0.0, 0.04), (0.05, 0.055), (0.1, 0.07), (0.9, 0.07)):
        model.progress = progress
        assert model.teacher_temperature_now == pytest.approx(temperature)


def test_the_centre_moves_over_several_steps() -> None:
    model = dino()
    expected = torch.zeros(24)
    for step in range(3):
        batch = batch_of(3, seed=step)
        with torch.no_grad():
            both = torch.cat([model.kept.pooled(crop) for crop in batch["crops"]])
            expected = 0.9 * expected + 0.1 * model.teacher_head(both).mean(dim=0)
        model(batch, generator())
        torch.testing.assert_close(model.centre, expected, rtol=1e-4, atol=1e-6)
    model.eval()(batch, generator())
    torch.testing.assert_close(model.centre, expected, rtol=1e-4, atol=1e-6)


def test_prototypes_and_their_lengths_are_frozen_at_first() -> None:
    model = dino(freeze_share=0.1, norm_last_layer=False)
    frozen = (model.head.prototypes, model.head.lengths)
    model(batch_of(3), generator())["loss"].backward()
    for parameter in frozen:
        assert parameter.grad is not None
        assert not parameter.grad.any()
    assert model.head.mlp[0].weight.grad.any()
    model.before_update()
    assert all(parameter.grad is None for parameter in frozen)
    model.progress = 0.1
    model(batch_of(3), generator())["loss"].backward()
    model.before_update()
    assert all(parameter.grad.any() for parameter in frozen)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BEiT(tiny_vit(patch_size=9, image_size=36)), "patch size must be even"),
        (lambda: MAE(tiny_vit(), decoder_dim=30, decoder_heads=2), "decoder_dim=30"),
        (lambda: MAE(tiny_vit(), decoder_dim=16, decoder_heads=3), "decoder_heads=3"),
        (lambda: MoCoV3(tiny_vit(), temperature=0.0), "temperature is 0.0"),
        (lambda: DINO(tiny_vit(), num_prototypes=1), "at least two prototypes"),
        (lambda: dino(momentum=1.5), "momentum is 1.5; it must be in"),
        (lambda: dino(warmup_share=-1.0), "warmup_share is -1"),
        (lambda: DINO(tiny_vit(), bottleneck_dim=0), "bottleneck_dim is 0"),
        (lambda: MoCoV3(tiny_vit(), hidden_dim=0), "hidden_dim is 0"),
        (lambda: MAE(tiny_vit(), decoder_heads=0), "decoder_heads is 0"),
        (lambda: MAE(tiny_vit(image_size=8)), "A grid of 1×1 patches is too small"),
        (lambda: BEiT(tiny_vit(image_size=8)), "at least 2×2 patches, not 1×1"),
        (lambda: Supervised(tiny_vit(), label_smoothing=2.0).attach(3, 8), "label_smoothing is 2"),
        (lambda: Supervised(tiny_vit(), mixup=-1.0).attach(3, 8), "mixup is -1"),
    ],
)
def test_impossible_settings_are_refused(make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


def test_the_pixels_of_a_hidden_patch_do_not_reach_beits_prediction() -> None:
    model, images = beit(), tiny_batch()["images"]
    keep = model.masking.visible(4, (4, 4), generator())
    assert keep.shape == (4, 10)  # 6 of 16 are hidden
    vit, token = model.backbone, model.mask_token
    before = vit.masked_features(images, keep, token)
    assert torch.equal(before, vit.masked_features(blanked(images, hidden_from(keep, 16)), keep, token))
    assert not torch.equal(before, vit.masked_features(blanked(images, keep[:, :1]), keep, token))
    batch = batch_of()
    hidden = {**batch, "images": blanked(batch["images"], hidden_from(keep, 16))}
    assert torch.equal(model(hidden, generator())["loss"], model(batch, generator())["loss"])


def test_maes_loss_ignores_visible_targets_and_its_encoder_hidden_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = mae(), batch_of()
    keep = model.masking.visible(4, (4, 4), generator())
    true = model.targets(batch["images"])
    loss = model(batch, generator())["loss"]
    wrong = true.scatter(1, keep[:, :, None].expand(-1, -1, true.shape[2]), 100.0)
    monkeypatch.setattr(model, "targets", lambda _: wrong)
    assert torch.equal(model(batch, generator())["loss"], loss)
    monkeypatch.setattr(model, "targets", lambda _: true)
    hidden = {**batch, "images": blanked(batch["images"], hidden_from(keep, 16))}
    assert torch.equal(model(hidden, generator())["loss"], loss)


@pytest.mark.parametrize("name", METHODS)
def test_every_trained_parameter_gets_a_gradient_and_no_teacher_does(name: str) -> None:
    model: Objective = METHODS[name].make()
    model.progress = 0.5
    model.train()(batch_of(6), generator())["loss"].backward()
    for parameter_name, parameter in model.named_parameters():
        if "teacher" in parameter_name or not parameter.requires_grad:
            assert parameter.grad is None
        else:
            assert parameter.grad is not None, parameter_name
            assert torch.isfinite(parameter.grad).all()


def test_mocov3s_patch_projection_stays_as_it_was_drawn() -> None:
    projection = mocov3().backbone.patch_embed.proj
    assert not projection.weight.requires_grad
    assert not projection.bias.requires_grad
    bound = math.sqrt(6 / (projection.weight[0].numel() + len(projection.weight)))
    assert float(projection.weight.abs().max()) <= bound
    assert not projection.bias.any()


def test_a_teacher_drops_no_paths() -> None:
    student = tiny_vit(drop_path=0.9)
    teacher = Teacher(student).train()
    images = tiny_batch()["images"]
    assert torch.equal(teacher.network.pooled(images), student.eval().pooled(images))


def test_supervised_training_is_cross_entropy_and_localisation() -> None:
    model, batch = supervised(), batch_of()
    model.progress = 0.2
    losses = model(batch, generator())
    features = model.backbone.features(batch["images"])
    targets = F.one_hot(batch["labels"], 3) * 0.9 + 0.1 / 3
    logits = model.head(features.mean(dim=1))
    classify = -(targets * torch.log_softmax(logits, dim=1)).sum(dim=1).mean()
    pairs = torch.randint(16, (4, 64, 2), generator=generator())
    terms = []
    for image, of_image in zip(features, pairs.tolist(), strict=True):
        for i, j in of_image:
            apart = torch.tensor([abs(i // 4 - j // 4) / 4, abs(i % 4 - j % 4) / 4])
            terms.append((model.auxiliary.mlp(torch.cat([image[i], image[j]])) - apart).abs().mean())
    torch.testing.assert_close(losses["classify"], classify, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(losses["localise"], torch.stack(terms).mean(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(losses["loss"], classify + 0.1 * losses["localise"], rtol=1e-5, atol=1e-5)


def test_images_are_mixed_in_training_only() -> None:
    model, batch = Supervised(tiny_vit()), batch_of()
    model.attach(3, 8)
    torch.manual_seed(0)
    with torch.no_grad():
        trained = model.train()(batch, generator())["classify"]
        evaluated = model.eval()(batch, generator())["classify"]
        plain = F.cross_entropy(model.head(model.backbone.features(batch["images"]).mean(dim=1)), batch["labels"])
    torch.testing.assert_close(evaluated, plain, rtol=1e-5, atol=1e-6)
    assert not torch.isclose(trained, plain, rtol=1e-3)


def test_the_weight_of_localisation_rises_and_falls() -> None:
    auxiliary = RelativeLocalisation(tiny_vit(), weight=0.5, ramp_share=0.2)
    weights = [auxiliary.weight_at(progress) for progress in (0.0, 0.1, 0.2, 0.6, 1.0)]
    assert weights == pytest.approx([0.0, 0.25, 0.5, 0.25, 0.0])
    with pytest.raises(UserError, match="ramp_share"):
        RelativeLocalisation(tiny_vit(), ramp_share=1.0)


def test_distances_are_shares_of_the_grid_or_numbers_of_patches() -> None:
    vit = tiny_vit()
    rows, columns = vit.grid
    pairs = torch.tensor([[[0, rows * columns - 1]]])
    assert RelativeLocalisation(vit).distances(pairs)[0, 0].tolist() == pytest.approx([1 - 1 / rows, 1 - 1 / columns])
    assert RelativeLocalisation(vit, unit="patch").distances(pairs)[0, 0].tolist() == [rows - 1, columns - 1]
    with pytest.raises(UserError, match="unit is 'pixel'"):
        RelativeLocalisation(vit, unit="pixel")  # type: ignore[arg-type]


def test_supervised_training_needs_classes() -> None:
    with pytest.raises(UserError, match="at least two classes"):
        Supervised(tiny_vit()).attach(1, 8)


@pytest.mark.parametrize("mask_ratio", [0.2, 0.4, 0.75])
def test_methods_with_one_branch_hide_any_share(mask_ratio: float) -> None:
    masking = UniformMasking(mask_ratio)
    for model in (
        BEiT(tiny_vit(), tokenizer=tiny_tokenizer, masking=masking),
        MAE(tiny_vit(), masking=masking, decoder_dim=16, decoder_depth=1, decoder_heads=2),
    ):
        assert torch.isfinite(model(batch_of(), generator())["loss"])
