"""Quality of frozen features: RankMe, k-nearest neighbours, a linear classifier. Pure functions of tensors.

N training images, M queries, D features, K classes.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_splitmask.errors import UserError

CHUNK = 1024
"""Queries that are compared with all training images at once."""

BLOCKS = 8
"""Blocks of images in the jackknife of :func:`rankme_error`."""

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
"""Weight decays that the linear probe chooses from."""


def rankme(features: Tensor) -> float:
    """The effective rank of features: the exponential of the entropy of their normalised singular values (RankMe, Eq. 1).

    Args:
        features: (N, D) float.

    Returns:
        A rank between 1 and min(N, D).
    """
    return _effective_rank(_gram(features))


def rankme_error(features: Tensor) -> float:
    """The standard error of :func:`rankme`, by a jackknife over eight blocks of images.

    Args:
        features: (N, D) float.

    Returns:
        The standard error; NaN with fewer images than blocks.
    """
    if len(features) < BLOCKS:
        return float("nan")
    whole = _gram(features)
    left_out = torch.tensor([_effective_rank(whole - _gram(features[start::BLOCKS])) for start in range(BLOCKS)])
    return float(((BLOCKS - 1) / BLOCKS * (left_out - left_out.mean()).square().sum()).sqrt())


def _gram(features: Tensor) -> Tensor:
    features = features.double()
    return features.T @ features


def _effective_rank(gram: Tensor) -> float:
    singular = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    share = singular / singular.sum().clamp(min=1e-12)
    return float(torch.exp(-(share * torch.log(share.clamp(min=1e-12))).sum()))


def knn_predict(
    train: Tensor, labels: Tensor, queries: Tensor, num_classes: int, *, k: int = 20, temperature: float = 0.07
) -> Tensor:
    """Classifies by the vote of the nearest neighbours, weighted by exp(cosine / temperature), as in DINO.

    Args:
        train: Features of the training images, (N, D) float.
        labels: Labels of the training images, (N,) int64 in [0, K).
        queries: Features to classify, (M, D) float.
        num_classes: K.
        k: Neighbours that vote; all N if there are fewer.
        temperature: Temperature of the weights; the lower, the more the nearest neighbours count.

    Returns:
        Classes, (M,) int64.

    Raises:
        UserError: The labels are of fewer than two classes, or outside [0, K).
    """
    check_probe(labels, num_classes)
    train, queries = F.normalize(train.float(), dim=1), F.normalize(queries.float(), dim=1)
    predicted = []
    for chunk in queries.split(CHUNK):
        similarity, nearest = (chunk @ train.T).topk(min(k, len(train)), dim=1)
        votes = chunk.new_zeros(len(chunk), num_classes)
        votes.scatter_add_(1, labels[nearest], torch.exp((similarity - 1) / temperature))
        predicted.append(votes.argmax(dim=1))
    return torch.cat(predicted) if predicted else labels.new_zeros(0)


class LinearProbe:
    """A linear classifier on frozen features: multinomial logistic regression, fitted to the optimum by L-BFGS.

    Features are standardised by the mean and deviation of the training images, like MAE's batch norm without affine parameters.
    The convex problem is solved, where MAE trains with LARS for 90 epochs. The weight decay is chosen on a held-out fifth of
    the training images.

    Args:
        features: (N, D) float.
        labels: (N,) int64 in [0, K).
        num_classes: K.

    Raises:
        UserError: The labels are of fewer than two classes, or outside [0, K).
    """

    def __init__(self, features: Tensor, labels: Tensor, num_classes: int) -> None:
        check_probe(labels, num_classes)
        features = features.float()
        self.mean = features.mean(dim=0)
        self.std = features.std(dim=0, correction=0).clamp(min=1e-6)
        standard = (features - self.mean) / self.std
        held_out = _every_fifth_of_each_class(labels)
        self.penalty = PENALTIES[1]
        if int(held_out.sum()) > 0 and len(labels[~held_out].unique()) > 1:
            scores = []
            weights = None
            for penalty in reversed(
                PENALTIES
            ):  # from strong to weak: each solution is a good starting point for the next
                weights = _fit(standard[~held_out], labels[~held_out], num_classes, penalty, weights)
                right = _logits(standard[held_out], weights).argmax(dim=1) == labels[held_out]
                scores.append((int(right.sum()), penalty))
            self.penalty = max(scores)[1]
        self.weights = _fit(standard, labels, num_classes, self.penalty, None)

    def predict(self, features: Tensor) -> Tensor:
        """Classifies features: (M, D) float -> (M,) int64."""
        return _logits((features.float() - self.mean) / self.std, self.weights).argmax(dim=1)


def accuracy(predicted: Tensor, labels: Tensor) -> tuple[float, float]:
    """The accuracy in [0, 1] and its binomial standard error; NaN without labels.

    Args:
        predicted, labels: Classes, (N,) int64.
    """
    num = len(labels)
    if num == 0:
        return float("nan"), float("nan")
    share = float((predicted == labels).double().mean())
    smoothed = (share * num + 1) / (num + 2)  # the error must not be 0 at an accuracy of 0 or 1
    return share, float((smoothed * (1 - smoothed) / num) ** 0.5)


def check_probe(labels: Tensor, num_classes: int) -> None:
    """Checks that a classifier can be fitted.

    Args:
        labels: Labels of the training images, (N,) int64.
        num_classes: K.

    Raises:
        UserError: The labels are of fewer than two classes, or outside [0, K).
    """
    present = sorted(set(labels.tolist()))
    if len(present) < 2 or present[0] < 0 or present[-1] >= num_classes:
        shown: Sequence[int] = present[:5]
        raise UserError(
            f"A probe needs training images of at least two of the {num_classes} classes, but their labels are {shown}: give "
            "labelled images, or leave out the signals that need labels."
        )


def _every_fifth_of_each_class(labels: Tensor) -> Tensor:
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        chosen[(labels == label).nonzero()[:, 0][4::5]] = True
    return chosen


def _logits(features: Tensor, weights: Tensor) -> Tensor:
    return features @ weights[:-1] + weights[-1]


def _fit(features: Tensor, labels: Tensor, num_classes: int, penalty: float, start: Tensor | None) -> Tensor:
    """Weights (D + 1, K), the bias last, that minimise cross-entropy plus half the penalty times the sum of squared weights."""
    shape = (features.shape[1] + 1, num_classes)
    weights = (features.new_zeros(shape) if start is None else start.clone()).requires_grad_()
    solver = torch.optim.LBFGS([weights], max_iter=100, tolerance_grad=1e-5, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        loss = F.cross_entropy(_logits(features, weights), labels) + penalty / 2 * weights[:-1].square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        solver.step(closure)
    return weights.detach()
