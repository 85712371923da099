"""Probes over features in files agree with those of features in memory."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from lit_splitmask import streamed_probing
from lit_splitmask.errors import UserError
from lit_splitmask.probing import LinearProbe, accuracy, knn_predict
from lit_splitmask.streamed_probing import FeatureFiles, StreamedLinearProbe, streamed_knn


def features(num: int, seed: int, spread: float = 2.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (num,), generator=generator)
    centres = torch.randn(4, 16, generator=torch.Generator().manual_seed(9))
    return centres[labels] + spread * torch.randn(num, 16, generator=generator), labels


def stored(folder: Path, rows: Tensor, labels: Tensor) -> FeatureFiles:
    files = FeatureFiles(folder, [3, rows.shape[1]], len(rows))
    for part, names in zip(rows.split(37), labels.split(37), strict=True):
        files.add([part[:, :3], part], names)
    return files


def test_features_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows, labels = features(100, 0)
    files = stored(tmp_path, rows, labels)
    assert torch.equal(files.labels, labels)
    torch.testing.assert_close(torch.cat(list(files.batches(1, 30))), rows, rtol=1e-3, atol=1e-3)
    assert torch.equal(files.read(0, 40, 41), files.read(1, 40, 41)[:, :3])


def test_the_streamed_probe_is_the_solved_one_within_its_standard_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamed_probing, "LEAST_STEPS", 1)
    monkeypatch.setattr(streamed_probing, "PASSES", 12)
    rows, labels = features(400, 0)
    queries, truth = features(1000, 1)
    solved = LinearProbe(rows, labels, 4)
    streamed = StreamedLinearProbe(stored(tmp_path, rows, labels), 1, 4)
    expected, error = accuracy(solved.predict(queries), truth)
    assert 0.5 < expected < 0.95
    assert accuracy(streamed.predict(queries), truth)[0] == pytest.approx(expected, abs=error)
    assert (streamed.predict(queries) == solved.predict(queries)).double().mean() > 0.95


@pytest.mark.parametrize("k", [1, 20, 1000])
def test_neighbours_are_found_across_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, k: int) -> None:
    monkeypatch.setattr(streamed_probing, "ROWS", 41)
    monkeypatch.setattr(streamed_probing, "QUERIES", 7)
    monkeypatch.setattr(FeatureFiles.batches, "__defaults__", (41,))
    rows, labels = features(150, 0)
    queries, _ = features(50, 1)
    rows = rows.half().float()
    found = streamed_knn(stored(tmp_path, rows, labels), 1, queries, 4, k=k)
    assert torch.equal(found, knn_predict(rows, labels, queries, 4, k=k))


def test_features_that_float16_cannot_hold_are_refused(tmp_path: Path) -> None:
    files = FeatureFiles(tmp_path, [2], 1)
    with pytest.raises(UserError, match="float16 cannot hold"):
        files.add([torch.tensor([[1e6, 0.0]])], torch.zeros(1, dtype=torch.int64))


def test_a_disk_without_room_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="make room"):
        FeatureFiles(tmp_path, [768] * 13, 10**12)
