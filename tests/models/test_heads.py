"""The word head is a linear layer with its loss."""

import pytest
import torch
import torch.nn.functional as F

from lit_splitmask.models import WordHead


def test_the_loss_is_the_cross_entropy_of_its_logits() -> None:
    head, states, words = WordHead(16, 50), torch.randn(30, 16), torch.randint(50, (30,))
    loss, accuracy = head.loss(states, words)
    torch.testing.assert_close(loss, F.cross_entropy(head(states), words))
    torch.testing.assert_close(accuracy, (head.predict(states) == words).float().mean())


def test_it_predicts_the_most_likely_words_for_any_shape_without_gradient() -> None:
    head, states = WordHead(16, 50), torch.randn(2, 3, 16)
    words = head.predict(states)
    assert words.shape == (2, 3)
    assert not words.requires_grad
    assert torch.equal(head(states).gather(-1, words[..., None])[..., 0], head(states).amax(dim=-1))


def test_its_first_logits_are_small_as_in_beit() -> None:
    head = WordHead(64, 500)
    assert float(head.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert not head.bias.any()


def test_it_learns() -> None:
    torch.manual_seed(0)
    head, states, words = WordHead(16, 8), torch.randn(32, 16), torch.randint(8, (32,))
    optimizer = torch.optim.Adam(head.parameters(), 0.1)
    for _ in range(60):
        optimizer.zero_grad()
        loss, accuracy = head.loss(states, words)
        loss.backward()
        optimizer.step()
    assert accuracy > 0.9
