"""Probes of features agree with slow, plain references."""

import math

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from lit_splitmask import probing
from lit_splitmask.errors import UserError
from lit_splitmask.probing import LinearProbe, accuracy, knn_predict, rankme, rankme_error


def clusters(num: int, width: int = 12, classes: int = 3, spread: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(classes, width, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(num) % classes
    return centres[labels] + spread * torch.randn(num, width, generator=generator), labels


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_rankme_of_orthogonal_directions_of_equal_size_is_their_number(rank: int) -> None:
    directions = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))[0][:rank]
    assert rankme(directions.repeat(10, 1)) == pytest.approx(rank, rel=1e-4)


def test_the_error_of_rankme_is_its_spread_over_samples() -> None:
    generator = torch.Generator().manual_seed(0)
    scales = torch.logspace(0, -2, 16)
    samples = [torch.randn(400, 16, generator=generator) * scales for _ in range(60)]
    spread = float(torch.tensor([rankme(sample) for sample in samples]).std())
    estimate = float(torch.tensor([rankme_error(sample) for sample in samples]).mean())
    assert estimate == pytest.approx(spread, rel=0.25)
    assert math.isnan(rankme_error(samples[0][:7]))


def test_rankme_agrees_with_its_definition() -> None:
    features = clusters(40)[0]
    singular = torch.linalg.svdvals(features.double())
    share = singular / singular.sum()
    assert rankme(features) == pytest.approx(math.exp(-float((share * share.log()).sum())), rel=1e-6)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
@pytest.mark.parametrize("k", [1, 5, 500])
def test_neighbours_vote_as_in_a_plain_loop(monkeypatch: pytest.MonkeyPatch, chunk: int, k: int) -> None:
    monkeypatch.setattr(probing, "CHUNK", chunk)
    train, labels = clusters(60, spread=3.0)
    queries, _ = clusters(20, spread=3.0, seed=1)
    expected = []
    for query in queries:
        similarity = torch.stack([torch.cosine_similarity(query, other, dim=0) for other in train])
        votes = torch.zeros(3)
        for index in similarity.argsort(descending=True)[:k].tolist():
            votes[labels[index]] += math.exp(similarity[index] / 0.07)
        expected.append(int(votes.argmax()))
    assert knn_predict(train, labels, queries, 3, k=k).tolist() == expected


def test_the_linear_probe_is_scikit_learns_optimum() -> None:
    train, labels = clusters(120, spread=3.0)
    queries, truth = clusters(300, spread=3.0, seed=1)
    probe = LinearProbe(train, labels, 3)
    standard = (train - train.mean(0)) / train.std(0, correction=0)
    reference = LogisticRegression(C=1 / (probe.penalty * len(train)), max_iter=1000, tol=1e-8).fit(standard, labels)
    theirs = torch.from_numpy(reference.predict((queries - train.mean(0)) / train.std(0, correction=0)))
    assert (probe.predict(queries) == theirs).double().mean() > 0.99
    assert (probe.predict(queries) == truth).double().mean() > 0.7


@pytest.mark.parametrize(("spread", "width", "seed"), [(1.0, 12, 0), (6.0, 60, 0), (6.0, 60, 1)])
def test_the_linear_probe_chooses_the_weight_decay_of_the_best_held_out_accuracy(
    spread: float, width: int, seed: int
) -> None:
    train, labels = clusters(150, width, spread=spread, seed=seed)
    standard = ((train - train.mean(0)) / train.std(0, correction=0)).numpy()
    held_out = torch.zeros(150, dtype=torch.bool)
    for label in range(3):
        held_out[(labels == label).nonzero()[:, 0][4::5]] = True
    scores = []
    for penalty in probing.PENALTIES:
        reference = LogisticRegression(C=1 / (penalty * 120), max_iter=1000, tol=1e-8)
        reference.fit(standard[~held_out], labels[~held_out])
        scores.append((reference.score(standard[held_out], labels[held_out]), penalty))
    assert LinearProbe(train, labels, 3).penalty == max(scores)[1]


def test_the_fifth_image_of_each_class_is_held_out_and_classes_with_fewer_lose_none() -> None:
    labels = torch.tensor([0, 1] * 4 + [0] * 6)
    assert probing._every_fifth_of_each_class(labels).nonzero()[:, 0].tolist() == [8, 13]


def test_the_scale_of_features_does_not_matter_to_the_linear_probe() -> None:
    train, labels = clusters(60)
    queries, _ = clusters(30, seed=1)
    scale = torch.logspace(-3, 3, 12)
    expected = LinearProbe(train, labels, 3).predict(queries)
    assert torch.equal(LinearProbe(train * scale + 5, labels, 3).predict(queries * scale + 5), expected)


def test_few_images_of_a_class_are_enough() -> None:
    train, labels = clusters(4)
    assert LinearProbe(train, labels, 3).predict(train).tolist() == labels.tolist()
    assert knn_predict(train, labels, train, 3).shape == (4,)


@pytest.mark.parametrize("labels", [[0, 0], [-1, 1], [0, 7]])
def test_labels_of_one_class_or_outside_the_range_are_refused(labels: list[int]) -> None:
    with pytest.raises(UserError, match="at least two of the 3 classes"):
        LinearProbe(torch.randn(2, 4), torch.tensor(labels), 3)
    with pytest.raises(UserError, match="at least two of the 3 classes"):
        knn_predict(torch.randn(2, 4), torch.tensor(labels), torch.randn(1, 4), 3)


def test_the_error_of_an_accuracy_is_binomial() -> None:
    value, error = accuracy(torch.tensor([1] * 75 + [0] * 25), torch.ones(100))
    assert value == 0.75
    assert error == pytest.approx((0.75 * 0.25 / 100) ** 0.5, rel=0.02)
    assert accuracy(torch.ones(10), torch.ones(10))[1] > 0.05
    assert all(map(math.isnan, accuracy(torch.ones(0), torch.ones(0))))
