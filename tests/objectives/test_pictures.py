"""Pictures show what a method sees and predicts."""

from typing import Any

import pytest
import torch
from reference.tiny import blanked, generator, tiny_splitmask, tiny_vit
from reference.tiny_methods import METHODS, batch_of, beit, mae, simmim
from torch import Tensor

from lit_splitmask.masking import UniformMasking, hidden_from
from lit_splitmask.objectives import MAE
from lit_splitmask.tokenizers.pictures import words_as_patches


def to_pixels(images: Tensor) -> Tensor:
    """The inverse of the normalisation of tiny batches."""
    return (images * 0.25 + 0.5).clamp(0, 1)


def drawn(model: Any, num_images: int = 3) -> dict[str, Tensor]:
    with torch.no_grad():
        return model.draw(batch_of(6), generator(), num_images=num_images, to_pixels=to_pixels)


def patch_of(images: Tensor, b: int, i: int, size: int = 8) -> Tensor:
    """Patch ``i`` of image ``b``, for four patches in a row."""
    return images[b, :, i // 4 * size : i // 4 * size + size, i % 4 * size : i % 4 * size + size]


@pytest.mark.parametrize("name", METHODS)
def test_masked_methods_draw_images_in_columns_and_others_draw_nothing(name: str) -> None:
    model = METHODS[name].make().eval()
    columns = model.draw(batch_of(6), generator(), num_images=3, to_pixels=to_pixels)
    assert (columns is not None) == (model.picture_file is not None) == hasattr(model, "masking")
    if columns is not None:
        assert model.picture_file == ("halves.png" if name == "splitmask" else "masked.png")
        for column in columns.values():
            assert column.shape == (3, 3, 32, 32)
            assert 0 <= column.min() <= column.max() <= 1
        torch.testing.assert_close(columns["image"], to_pixels(batch_of(6)["images"][:3]))


@pytest.mark.parametrize("make", [beit, mae, simmim])
def test_hidden_patches_are_grey_and_visible_ones_unchanged(make: Any) -> None:
    model = make().eval()
    columns, keep = drawn(model), model.masking.visible(3, (4, 4), generator()).tolist()
    for b in range(3):
        for i in range(16):
            expected = patch_of(columns["image"], b, i) if i in keep[b] else torch.full((3, 8, 8), 0.5)
            assert torch.equal(patch_of(columns["visible"], b, i), expected)


@pytest.mark.parametrize("make", [mae, simmim])
def test_hidden_pixels_change_a_reconstruction_only_by_the_mean_and_deviation_that_mae_takes(make: Any) -> None:
    model, batch = make().eval(), batch_of(6)
    keep = model.masking.visible(3, (4, 4), generator())
    hidden = {**batch, "images": torch.cat([blanked(batch["images"][:3], hidden_from(keep, 16)), batch["images"][3:]])}
    first, second = (model.draw(b, generator(), num_images=3, to_pixels=to_pixels) for b in (batch, hidden))
    assert torch.equal(first["visible"], second["visible"])
    assert torch.equal(first["reconstruction"], second["reconstruction"]) == (make is simmim)


@pytest.mark.parametrize("normalise_targets", [True, False])
def test_maes_predictions_get_the_mean_and_deviation_of_the_true_patch(normalise_targets: bool) -> None:
    settings: dict[str, Any] = {"decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2}
    model = MAE(tiny_vit(), normalise_targets=normalise_targets, **settings).eval()
    columns, images = drawn(model), batch_of(6)["images"][:3]
    keep = model.masking.visible(3, (4, 4), generator())
    predicted = model.predict(images, keep, hidden_from(keep, 16))
    for b, hidden in enumerate(hidden_from(keep, 16).tolist()):
        for number, i in enumerate(hidden):
            true, guess = patch_of(images, b, i), predicted[b, number].reshape(3, 8, 8)
            if normalise_targets:
                guess = guess * (true.var() + 1e-6).sqrt() + true.mean()
            torch.testing.assert_close(patch_of(columns["reconstruction"], b, i), to_pixels(guess))
        for i in keep[b].tolist():
            assert torch.equal(patch_of(columns["reconstruction"], b, i), patch_of(columns["image"], b, i))


def test_simmims_predictions_stand_where_patches_are_hidden() -> None:
    model = simmim().eval()
    columns, images = drawn(model), batch_of(6)["images"][:3]
    keep = model.masking.visible(3, (4, 4), generator())
    predicted = model.predict(images, keep, hidden_from(keep, 16))
    for b, hidden in enumerate(hidden_from(keep, 16).tolist()):
        for number, i in enumerate(hidden):
            expected = to_pixels(predicted[b, number].reshape(3, 8, 8))
            assert torch.equal(patch_of(columns["reconstruction"], b, i), expected)
        for i in keep[b].tolist():
            assert torch.equal(patch_of(columns["reconstruction"], b, i), patch_of(columns["image"], b, i))


def enlarged(tokenizer: Any, words: Tensor) -> Tensor:
    """Words drawn with the patches of the whole batch, at the size of the images."""
    return words_as_patches(tokenizer, batch_of(6)["token_view"], words).repeat_interleave(2, 2).repeat_interleave(2, 3)


def only(images: Tensor, shown: Tensor) -> Tensor:
    """Images with grey in place of the patches that are not shown."""
    images = images.clone()
    for b in range(len(images)):
        for i in set(range(16)).difference(shown[b].tolist()):
            patch_of(images, b, i).fill_(0.5)
    return images


def test_beits_predicted_words_stand_where_patches_are_hidden() -> None:
    model = beit().eval()
    columns, batch = drawn(model), batch_of(6)
    keep = model.masking.visible(3, (4, 4), generator())
    words = model.tokenizer(batch["token_view"][:3])
    assert list(columns) == ["image", "visible", "true words", "predicted words"]
    assert torch.equal(columns["true words"], enlarged(model.tokenizer, words))
    encoded = model.backbone.masked_features(batch["images"][:3], keep, model.mask_token)
    for b, hidden in enumerate(hidden_from(keep, 16).tolist()):
        for i in hidden:
            words[b, i] = model.head(encoded[b, i]).argmax()
    assert torch.equal(columns["predicted words"], only(enlarged(model.tokenizer, words), hidden_from(keep, 16)))


def test_splitmask_draws_what_each_branch_sees_and_predicts() -> None:
    model, batch = tiny_splitmask(masking=UniformMasking(0.75)).eval(), batch_of(6)
    columns, keeps = drawn(model), model.masking.split(3, (4, 4), generator())
    assert list(columns) == ["image", "A sees", "B sees", "true words", "A predicts", "B predicts"]
    for name, keep, decoded in zip("AB", keeps, model.decode(batch["images"][:3], list(keeps)), strict=True):
        words = model.tokenizer(batch["token_view"][:3])
        for b, hidden in enumerate(hidden_from(keep, 16).tolist()):
            for i in range(16):
                expected = torch.full((3, 8, 8), 0.5) if i in hidden else patch_of(columns["image"], b, i)
                assert torch.equal(patch_of(columns[f"{name} sees"], b, i), expected)
            for i in hidden:
                words[b, i] = model.head(decoded[b, i]).argmax()
        assert torch.equal(columns[f"{name} predicts"], only(enlarged(model.tokenizer, words), hidden_from(keep, 16)))


def test_splitmask_without_split_draws_its_one_branch() -> None:
    columns = drawn(tiny_splitmask(split=False, match=False, masking=UniformMasking(0.4)))
    assert list(columns) == ["image", "A sees", "true words", "A predicts"]


def test_splitmask_without_words_draws_nothing() -> None:
    model = tiny_splitmask(inpaint=False)
    assert model.picture_file is None
    assert drawn(model) is None
