"""Crops for training and evaluation, which datamodules of squares share; tested on an image folder."""

import pytest
import torch
from folder_data import MakeData, ready

from lit_splitmask.datamodules import FinetuneAugment, PretrainAugment
from lit_splitmask.errors import UserError


def test_evaluation_sees_every_image_once_in_order(make_data: MakeData) -> None:
    data = ready(make_data(eval_batch_size=2))
    for split, loader in (("val", data.val_dataloader()), ("test", data.test_dataloader())):
        files = data.index.splits[split]
        assert torch.cat([batch["index"] for batch in loader]).tolist() == list(range(len(files)))
        assert torch.cat([batch["label"] for batch in loader]).tolist() == data.index.labels(files).tolist()


def test_an_evaluation_batch_is_a_training_batch_of_at_most_256_images(make_data: MakeData) -> None:
    assert make_data(batch_size=8).eval_batch_size == 8
    assert make_data(batch_size=1_000).eval_batch_size == 256
    assert make_data(batch_size=1_000, eval_batch_size=400).eval_batch_size == 400


def test_the_augmentation_decides_on_copies_and_crops(make_data: MakeData) -> None:
    plain, repeated = make_data(), make_data(augment=FinetuneAugment(repeats=3))
    assert isinstance(plain.augment, PretrainAugment)
    assert (plain.repeats, plain.crop_sizes) == (1, [16])
    assert repeated.repeats == 3
    batch = next(iter(ready(repeated).train_dataloader()))
    assert len(batch["index"].unique()) < len(batch["index"])


@pytest.mark.parametrize("setting", [{"eval_batch_size": 0}, {"crop_ratio": 1.5}, {"crop_ratio": 0.0}])
def test_impossible_settings_of_crops_are_refused(make_data: MakeData, setting: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(setting))):
        make_data(**setting)
