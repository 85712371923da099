"""Parts of the detector agree with slow, plain references."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.ops import roi_align

from lit_splitmask.errors import UserError
from lit_splitmask.models import ViT, ViTConfig
from lit_splitmask.models.mask_rcnn import DetectorConfig, MaskRCNN
from lit_splitmask.models.roi import LevelRoIAlign, crop_masks, paste_masks
from lit_splitmask.optim import OptimConfig, layer_of, lr_factor, parameter_groups

SMALL = DetectorConfig(channels=16, box_features=24, anchor_scale=4.0, proposals=30, regions_per_image=16)
SHAPE: dict[str, Any] = {
    "size": "tiny",
    "embed_dim": 32,
    "depth": 4,
    "num_heads": 2,
    "patch_size": 8,
    "positions": "sincos",
}


def network(masks: bool = True, **changes: Any) -> MaskRCNN:
    torch.manual_seed(0)
    vit = ViT(ViTConfig(**{"image_size": 64, **SHAPE, **changes.pop("vit", {})}))
    return MaskRCNN(vit, 3, config=DetectorConfig(**{**vars(SMALL), **changes}), masks=masks)


def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(3, 40, 72, generator=generator), torch.randn(3, 64, 50, generator=generator)]


def targets() -> list[dict[str, Tensor]]:
    boxes = torch.tensor([[4.0, 6, 30, 28], [32, 8, 60, 36]])
    masks = torch.zeros(2, 40, 72, dtype=torch.bool)
    masks[0, 6:28, 4:30] = masks[1, 8:36, 32:60] = True
    one = {"boxes": boxes, "labels": torch.tensor([0, 2]), "masks": masks}
    none = {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.int64),
        "masks": torch.zeros(0, 64, 50) > 0,
    }
    return [one, none]


@pytest.mark.parametrize("masks", [True, False])
def test_every_trainable_parameter_gets_a_gradient(masks: bool) -> None:
    model = network(masks)
    losses = model.losses(images(), targets())
    assert losses.keys() == {"objectness", "proposal", "class", "box"} | ({"mask"} if masks else set())
    sum(losses.values(), torch.zeros(())).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_images_without_objects_have_a_loss_with_a_gradient_of_every_trainable_parameter() -> None:
    model = network()
    losses = model.losses(images(), [targets()[1], targets()[1]])
    assert all(torch.isfinite(value) for value in losses.values())
    assert losses["box"].item() == losses["mask"].item() == 0
    sum(losses.values(), torch.zeros(())).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_classes_count_from_1_inside_and_from_0_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network(score_threshold=0.0)
    seen: dict[str, list[Tensor]] = {}
    forward = model.roi_heads.forward

    def spy(features: Any, proposals: Any, image_shapes: Any, targets: Any = None) -> Any:
        found, losses = forward(features, proposals, image_shapes, targets)
        seen["labels"] = [one["labels"] for one in (found if targets is None else targets)]
        return found, losses

    monkeypatch.setattr(model.roi_heads, "forward", spy)
    model.losses(images(), targets())
    assert [labels.tolist() for labels in seen["labels"]] == [[1, 3], []]
    found = model.detect(images(), [(40, 72), (64, 50)])
    for one, labels in zip(found, seen["labels"], strict=True):
        assert torch.equal(one["labels"], labels - 1)


def test_a_cell_of_a_cropped_mask_belongs_to_it_if_half_of_its_pixels_do() -> None:
    mask = torch.zeros(1, 9, 6, dtype=torch.bool)  # cells of 3 x 3 pixels
    for (row, column), pixels in {(0, 0): 4, (0, 1): 5, (1, 0): 9, (2, 1): 1}.items():
        for pixel in range(pixels):
            mask[0, 3 * row + pixel // 3, 3 * column + pixel % 3] = True
    padded = torch.nn.functional.pad(mask, (0, 3))
    cells = crop_masks(padded, torch.tensor([0]), torch.tensor([[0.0, 0, 9, 9]]), 3)
    assert cells[0].tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]


def test_gradient_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointed in (False, True):
        model = network(grad_checkpointing=checkpointed, vit={"drop_path": 0.2}).train()
        torch.manual_seed(5)
        sum(model.losses(images(), targets()).values(), torch.zeros(())).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_anchors_are_spaced_by_the_strides_of_the_maps_for_any_image_size() -> None:
    model = network()
    batch = model.batch(
        [torch.zeros(3, 80, 112)]
    )  # strides 2 to 32: the coarsest map has 3 x 4 cells for 80 x 112 pixels
    maps = list(model.backbone(batch.tensors).values())
    assert [tuple(one.shape[-2:]) for one in maps] == [(40, 56), (20, 28), (10, 14), (5, 7), (3, 4)]
    anchors = model.rpn.anchor_generator(batch, maps)[0]
    centres = ((anchors[:, :2] + anchors[:, 2:]) / 2).unflatten(0, (-1, 3))[:, 0]
    expected = [(stride * x, stride * y) for stride, one in zip((2, 4, 8, 16, 32), maps, strict=True)
                for y in range(one.shape[-2]) for x in range(one.shape[-1])]  # fmt: skip
    assert torch.equal(centres, torch.tensor(expected).float())


@pytest.mark.parametrize(
    ("depth", "taps"), [(4, [0, 1, 2, 3]), (5, [0, 1, 2, 4]), (6, [1, 2, 3, 5]), (12, [3, 5, 7, 11])]
)
def test_the_four_maps_come_from_four_different_blocks(depth: int, taps: list[int]) -> None:
    model = network(vit={"depth": depth})
    assert model.backbone.pyramid.taps == taps
    assert len(model.backbone(torch.zeros(1, 3, 64, 64))) == 5


def test_the_loss_of_boxes_is_l1_divided_by_the_number_sampled() -> None:
    model = network()
    positive, negative = torch.tensor([1, 0, 1, 0]), torch.tensor([0, 1, 0, 0])
    model.rpn.fg_bg_sampler = lambda labels: ([positive], [negative])  # type: ignore[assignment]
    deltas, truth = torch.randn(4, 4), torch.randn(4, 4)
    objectness, labels = torch.randn(4, 1), torch.tensor([1.0, 0, 1, 0])
    cross_entropy, box = model.rpn.compute_loss(objectness, deltas, [labels], [truth])
    assert float(box) == pytest.approx(float((deltas - truth).abs()[[0, 2]].sum() / 3))
    expected = F.binary_cross_entropy_with_logits(objectness[[0, 2, 1], 0], labels[[0, 2, 1]])
    assert float(cross_entropy) == pytest.approx(float(expected))


def test_a_region_is_pooled_from_the_map_of_its_size_and_aligned() -> None:
    pool = LevelRoIAlign([4, 8, 16, 32], 7)
    sides = torch.tensor([20.0, 111, 113, 223, 225, 447, 449, 2000])
    boxes = torch.stack([torch.zeros(8), torch.zeros(8), sides, sides], dim=1)
    assert pool.levels(boxes).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]  # FPN's Eq. 1: 224 px has stride 16
    maps = {str(i): torch.randn(2, 3, 64 >> i, 64 >> i) for i in range(4)}
    boxes = [torch.tensor([[3.0, 5, 40, 60]]), torch.tensor([[10.0, 20, 200, 210], [0, 0, 250, 250]])]
    pooled = pool(maps, boxes, [])
    expected = [
        roi_align(maps["0"], torch.tensor([[0, 3.0, 5, 40, 60]]), 7, 1 / 4, 0, True),
        roi_align(maps["1"], torch.tensor([[1, 10.0, 20, 200, 210]]), 7, 1 / 8, 0, True),
        roi_align(maps["2"], torch.tensor([[1, 0.0, 0, 250, 250]]), 7, 1 / 16, 0, True),
    ]
    torch.testing.assert_close(pooled, torch.cat(expected))


def test_strides_need_not_be_powers_of_two() -> None:
    model = network(vit={"patch_size": 12, "image_size": 96})
    features = model.backbone(torch.zeros(1, 3, 96, 72))
    assert [96 // one.shape[2] for one in features.values()] == model.backbone.strides == [3, 6, 12, 24, 48]
    model.eval()
    assert len(model.detect([torch.randn(3, 90, 70)], [(90, 70)])) == 1


def test_cropped_masks_that_are_pasted_match_the_original() -> None:
    mask = torch.zeros(1, 60, 80)
    ys, xs = torch.meshgrid(torch.arange(60.0), torch.arange(80.0), indexing="ij")
    mask[0, ((ys - 30) / 16) ** 2 + ((xs - 41) / 25) ** 2 <= 1] = 1
    around = torch.tensor([[16.0, 14, 67, 47]])
    cells = crop_masks(mask, torch.tensor([0]), around, 28)
    both = crop_masks(torch.cat([1 - mask, mask]), torch.tensor([1, 0, 1]), around.expand(3, -1), 28)
    assert torch.equal(both[0], cells[0])
    assert torch.equal(both[2], cells[0])
    assert not torch.equal(both[1], cells[0])
    assert cells.unique().tolist() == [0, 1]
    ours = torch.stack(list(paste_masks(cells, around, (60, 80))))
    theirs = paste_masks_in_image(cells[:, None], around, (60, 80))[:, 0] >= 0.5
    overlap = [float((one & (mask > 0)).sum() / (one | (mask > 0)).sum()) for one in (ours, theirs)]
    assert overlap[0] > 0.95
    assert overlap[0] >= overlap[1]


def test_a_mask_outside_the_image_is_cut_off_and_an_empty_box_stays_empty() -> None:
    boxes = torch.tensor([[-10.0, -10, 10, 10], [70, 50, 90, 70], [5, 5, 5, 5], [200, 200, 210, 210]])
    pasted = torch.stack(list(paste_masks(torch.ones(4, 28, 28), boxes, (60, 80))))
    assert pasted[0].sum() == 100
    assert pasted[1].sum() == 100
    assert pasted[2:].sum() == 0


def test_padding_is_zero_and_sides_fit_the_coarsest_map() -> None:
    batch = network().batch(images())
    assert batch.tensors.shape == (2, 3, 64, 80)
    assert batch.image_sizes == [(40, 72), (64, 50)]
    assert batch.tensors[0, :, 40:].abs().sum() == batch.tensors[1, :, :, 50:].abs().sum() == 0


def test_detections_are_scaled_to_the_original_size() -> None:
    model = network(score_threshold=0.0)
    model.train()
    same, double = (model.detect(images()[:1], [size])[0] for size in ((40, 72), (80, 144)))
    assert model.training
    assert len(same["boxes"]) > 0
    assert same["labels"].min() >= 0
    assert same["labels"].max() <= 2
    torch.testing.assert_close(double["boxes"], 2 * same["boxes"])
    assert double["masks"].shape[1:] == (80, 144)
    assert same["masks"].dtype == torch.bool
    assert (same["scores"].diff() <= 0).all()


def test_in_bfloat16_coordinates_stay_float32() -> None:
    model = network(score_threshold=0.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(one.dtype == torch.float32 for one in model.backbone(torch.zeros(1, 3, 64, 64)).values())
        losses = model.losses(images(), targets())
        found = model.detect(images(), [(40, 72), (64, 50)])
    assert all(value.dtype == torch.float32 for value in losses.values())
    assert found[0]["boxes"].dtype == found[0]["scores"].dtype == torch.float32


def test_fixed_positions_at_another_size_equal_those_of_a_network_of_that_size() -> None:
    model = network().eval()
    picture = torch.randn(1, 3, 96, 96)
    before = model.backbone.pyramid(picture)
    model.vit.resize(96)
    for one, other in zip(before, model.backbone.pyramid(picture), strict=True):
        torch.testing.assert_close(one, other)


def test_the_layers_of_the_backbone_are_found() -> None:
    model = network()
    layers = {name: layer_of(f"network.{name}", 4) for name, _ in model.named_parameters()}
    assert layers["backbone.pyramid.vit.patch_embed.proj.weight"] == 0
    assert layers["backbone.pyramid.vit.blocks.0.attn.qkv.weight"] == 1
    assert layers["backbone.pyramid.vit.blocks.3.mlp.fc2.bias"] == 4
    assert {layer for name, layer in layers.items() if ".vit." not in name} == {5}
    groups = parameter_groups(model.named_parameters(prefix="network"), OptimConfig(layer_decay=0.5), lr=1.0, depth=4)
    assert {group["lr"] for group in groups} == {0.5**5, 0.5**4, 0.5**3, 0.5**2, 0.5, 1.0}


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.1), (9, 1.0), (269, 1.0), (270, 0.1), (329, 0.1), (330, 0.01), (359, 0.01)]
)
def test_the_rate_is_divided_by_10_at_epochs_27_and_33_of_36(step: int, expected: float) -> None:
    assert lr_factor(step, 360, 10, 0.0, schedule="steps") == pytest.approx(expected)


@pytest.mark.parametrize(
    "changes", [{"channels": 0}, {"score_threshold": 1.0}, {"anchor_scale": -1.0}, {"anchors_per_image": 0}]
)
def test_invalid_settings_are_refused_by_name(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"detector.{next(iter(changes))} is"):
        DetectorConfig(**changes)
