"""Both losses against their formulas, term by term."""

from itertools import product

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from hstl_fast import losses
from tests.helpers.bounds import distance, rounding

LABELS = torch.tensor([4, 4, 4, 9, 9, 2])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_triplet_loss_is_the_mean_of_the_terms_that_are_not_zero() -> None:
    embeddings, margin, means = normal(6, 3, 4) / 4, 0.2, []
    for part in range(3):
        terms = []
        for anchor, positive, negative in product(range(6), repeat=3):
            if LABELS[anchor] == LABELS[positive] and LABELS[anchor] != LABELS[negative]:
                to_positive = torch.dist(embeddings[anchor, part], embeddings[positive, part])
                to_negative = torch.dist(embeddings[anchor, part], embeddings[negative, part])
                terms.append(max(0.0, float(to_positive - to_negative + margin)))
        counted = [term for term in terms if term > 0]
        assert 0 < len(counted) < len(terms)
        means.append(sum(counted) / len(counted))
    loss = losses.triplet_loss(embeddings, LABELS, margin)
    torch.testing.assert_close(loss.item(), sum(means) / 3)


def test_triplet_loss_is_zero_where_no_term_counts() -> None:
    apart = torch.arange(6.0)[:, None, None].expand(6, 2, 4)
    assert losses.triplet_loss(apart, torch.arange(6)) == 0
    assert losses.triplet_loss(apart, torch.zeros(6, dtype=torch.long)) == 0


def test_triplet_gradient_of_equal_embeddings_is_zero_not_nan() -> None:
    embeddings = torch.ones(6, 3, 4, requires_grad=True)
    loss = losses.triplet_loss(embeddings, LABELS)
    loss.backward()
    assert loss.item() == pytest.approx(0.2)
    assert embeddings.grad.count_nonzero() == 0


def test_triplet_gradient() -> None:
    assert gradcheck(lambda x: losses.triplet_loss(x, LABELS), normal(6, 2, 3).requires_grad_())


@pytest.mark.parametrize(("scale", "smoothing"), [(1.0, 0.0), (1.0, 0.1), (16.0, 0.1)])
def test_cross_entropy(scale: float, smoothing: float) -> None:
    logits, labels = normal(6, 3, 5), LABELS % 5
    log_p = torch.log_softmax(scale * logits, 2)
    of_label = torch.stack([log_p[i, :, label] for i, label in enumerate(labels)])
    expected = smoothing * -log_p.mean() + (1 - smoothing) * -of_label.mean()
    torch.testing.assert_close(losses.cross_entropy(logits, labels, scale, smoothing), expected)


def test_narrow_types_are_computed_in_float32() -> None:
    embeddings = normal(6, 3, 4)
    for dtype in (torch.float16, torch.bfloat16):
        narrow = embeddings.to(dtype)
        assert losses.triplet_loss(narrow, LABELS) == losses.triplet_loss(narrow.float(), LABELS)
        ce = losses.cross_entropy(narrow, LABELS % 4)
        assert ce.dtype == torch.float32
        assert ce == losses.cross_entropy(narrow.float(), LABELS % 4)


def test_bad_input() -> None:
    embeddings = normal(6, 3, 4)
    with pytest.raises(ValueError, match=r"embeddings must be \[N, P, C\], got \[3, 4\]"):
        losses.triplet_loss(embeddings[0], LABELS)
    with pytest.raises(ValueError, match="labels must be 6 integers"):
        losses.triplet_loss(embeddings, LABELS[:5])
    with pytest.raises(ValueError, match="labels must be 6 integers"):
        losses.cross_entropy(embeddings, LABELS.float())
    with pytest.raises(ValueError, match=r"logits must be \[N, P, K\]"):
        losses.cross_entropy(embeddings[0], LABELS)
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.3, got 2\.\.9"):
        losses.cross_entropy(embeddings, LABELS)


def test_autocast_does_not_narrow_distances() -> None:
    embeddings = torch.randn(4, 2, 64, generator=torch.Generator().manual_seed(5))
    labels = torch.tensor([0, 0, 1, 1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = losses.triplet_loss(embeddings, labels)
    assert narrow.item() == losses.triplet_loss(embeddings, labels).item()


def test_a_sequence_is_no_distance_from_itself() -> None:
    """In float32, |x|^2 + |x|^2 - 2 x.x is not exactly zero, and its square root is far from it."""
    embeddings = torch.randn(6, 3, 128, generator=torch.Generator().manual_seed(6)) * 30
    labels = torch.tensor([0, 1, 2, 3, 4, 5])  # an anchor's only positive is itself
    loss = losses.triplet_loss(embeddings, labels, margin=1000.0)
    in_float64 = losses.triplet_loss(embeddings.double(), labels, margin=1000.0)
    pairs = torch.cdist(embeddings.double().transpose(0, 1), embeddings.double().transpose(0, 1))
    expected = 1000 - pairs.sum((1, 2)).mean() / 30
    assert in_float64.item() == pytest.approx(expected.item(), rel=1e-9)
    # A distance is a sum over 128 channels, and a part's loss one over 30 pairs.
    assert distance(loss, in_float64) <= rounding(torch.float32, 128 + 30)
