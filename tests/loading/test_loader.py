"""Batches reach the training process whole, in memory of its own, whoever has read them."""

import pickle
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from lit_splitmask.loading.loader import MOST_BY_VALUE, _ByValue, make_loader
from lit_splitmask.loading.sampler import EvalSampler


class _Batches(Dataset):
    """Batches with everything that the datasets of this project put into one."""

    def __init__(self, side: int) -> None:
        self.side = side

    def __len__(self) -> int:
        return 12

    def __getitems__(self, keys: list[tuple[int, int]]) -> dict[str, Any]:
        numbers = torch.tensor([index for _, index in keys])
        pixels = torch.arange(len(keys) * self.side**2 * 3).reshape(len(keys), self.side, self.side, 3)
        return {
            "image": (pixels + numbers[:, None, None, None]).to(torch.uint8).permute(0, 3, 1, 2),
            "label": numbers.float() / 3,
            "index": numbers,
            "target": [{"boxes": number.repeat(4).double(), "masks": torch.ones(2, 5, 5).bool()} for number in numbers],
            "map": torch.full((len(keys), self.side, self.side), int(numbers[0])),
            "name": "of the batch",
        }


def _read(side: int, num_workers: int) -> list[dict[str, Any]]:
    return list(make_loader(_Batches(side), EvalSampler(12), batch_size=4, num_workers=num_workers))


def _tensors(batch: dict[str, Any]) -> list[torch.Tensor]:
    targets = [value for target in batch["target"] for value in target.values()]
    return [batch["image"], batch["label"], batch["index"], batch["map"], *targets]


@pytest.mark.parametrize("side", [4, 160], ids=["small", "large"])
def test_a_batch_from_a_worker_is_the_batch(side: int) -> None:
    assert (4 * side**2 * 3 > MOST_BY_VALUE) == (side == 160)
    own, others = _read(side, 0), _read(side, 1)
    assert len(own) == len(others) == 3
    for one, other in zip(own, others, strict=True):
        assert list(one) == list(other)
        assert one["name"] == other["name"]
        for expected, tensor in zip(_tensors(one), _tensors(other), strict=True):
            assert torch.equal(expected, tensor)
            assert (expected.dtype, expected.stride()) == (tensor.dtype, tensor.stride())
            assert not tensor.is_shared()  # a tensor in shared memory holds a file open as long as it lives


@pytest.mark.parametrize("channels", [1, 3])
def test_a_tensor_by_value_keeps_its_memory_format(channels: int) -> None:
    image = torch.arange(2 * 5 * 6 * channels, dtype=torch.uint8).reshape(2, 5, 6, channels).permute(0, 3, 1, 2)
    for tensor in (image, image.contiguous(), torch.tensor(3), torch.zeros(0, 4)):
        received = pickle.loads(pickle.dumps(_ByValue(tensor))).tensor()
        assert torch.equal(received, tensor)
        assert received.stride() == tensor.stride()
        received += 1  # its memory can be written
