"""Both losses against their formulas, term by term."""

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from hstl_fast import losses, reference
from hstl_fast.ops import triplet
from tests.helpers.bounds import distance, rounding

LABELS = torch.tensor([4, 4, 4, 9, 9, 2])
# Identities of one to five sequences, out of order.
UNEQUAL = torch.tensor([7, 3, 7, 1, 3, 7, 0, 7, 1, 7])


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


def of_definition(embeddings: Tensor, labels: Tensor, margin: float = 0.2) -> tuple[Tensor, Tensor]:
    """The loss and its gradient in float64, from a tensor of all triplets."""
    leaf = embeddings.double().requires_grad_()
    loss = reference.triplet_loss(leaf, labels, margin)
    return loss.detach(), torch.autograd.grad(loss, leaf)[0]


def of_package(embeddings: Tensor, labels: Tensor, margin: float = 0.2) -> tuple[Tensor, Tensor]:
    leaf = embeddings.clone().requires_grad_()
    loss = losses.triplet_loss(leaf, labels, margin)
    return loss.detach(), torch.autograd.grad(loss, leaf)[0]


@pytest.mark.parametrize("labels", [LABELS, UNEQUAL, torch.arange(40) % 9], ids=len)
@pytest.mark.parametrize("size", [0.05, 1.0, 30.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_triplet_loss_and_gradient_are_those_of_the_definition(labels: Tensor, size: float, dtype: torch.dtype) -> None:
    """Narrow embeddings are computed as in float64, and rounded once: the loss to float32, the gradient to their type.

    In float64 a distance is a sum over 16 channels, the loss a sum over the terms, a gradient one over the sequences.
    """
    embeddings = (normal(len(labels), 5, 16) * size).to(dtype)
    assert embeddings.isfinite().all()
    loss, gradient = of_package(embeddings, labels)
    expected_loss, expected_gradient = of_definition(embeddings, labels)
    assert expected_loss > 0
    assert loss.dtype == torch.promote_types(dtype, torch.float32)
    assert gradient.dtype == dtype
    in_float64 = rounding(torch.float64, 16 + len(labels) ** 3)
    assert distance(loss, expected_loss) <= rounding(loss.dtype, 1) + in_float64
    # The float32 gradient is rounded again to a narrower type.
    smallest = torch.finfo(dtype).tiny * torch.finfo(dtype).eps / expected_gradient.abs().max()
    allowed = rounding(dtype, 1) + rounding(loss.dtype, 1) + smallest + in_float64
    assert distance(gradient, expected_gradient) <= allowed


@pytest.mark.parametrize("size", [0, 3 * 10 * 10 * 8], ids=["part by part", "three parts at a time"])
def test_parts_in_chunks(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings = normal(10, 7, 4)
    whole = of_package(embeddings, UNEQUAL)
    monkeypatch.setattr(triplet, "_BYTES_ON_CPU", size)
    for found, expected in zip(of_package(embeddings, UNEQUAL), whole, strict=True):
        assert distance(found, expected) <= rounding(torch.float64, 4 + 10)


def test_terms_of_exactly_zero_do_not_count() -> None:
    """On a line of integers distances are exact, and with margin 1 many terms are exactly 0."""
    embeddings = torch.arange(6.0)[:, None, None] * torch.tensor([1.0, -3.0])[:, None]
    labels = torch.tensor([0, 1, 0, 1, 2, 0])
    apart = (embeddings[:, 0] - embeddings[:, 0].T).abs()
    same = labels[:, None] == labels
    terms = apart[:, :, None] - apart[:, None, :] + 1
    wanted = same[:, :, None] & ~same[:, None, :]
    assert (terms[wanted] == 0).sum() >= 10
    loss, gradient = of_package(embeddings, labels, margin=1.0)
    expected_loss, expected_gradient = of_definition(embeddings, labels, margin=1.0)
    torch.testing.assert_close(loss, expected_loss.float())
    torch.testing.assert_close(gradient, expected_gradient.float())
    ones = terms[wanted & (terms > 0)]
    assert losses.triplet_loss(embeddings[:, :1], labels, 1.0) == ones.mean()


def test_equal_embeddings_are_at_distance_zero() -> None:
    """A sequence may be drawn twice into a batch; the norms' difference would be a distance of the rounding error."""
    embeddings = torch.randn(12, 3, 200, generator=torch.Generator().manual_seed(6)) * 30
    embeddings[1::2] = embeddings[::2]
    labels = torch.arange(12) // 2
    found = of_package(embeddings, labels, margin=1000.0)
    leaf = embeddings.double().requires_grad_()
    apart = (leaf[:, None] - leaf[None]).square().sum(-1)  # anchor other p
    apart = torch.where(apart == 0, 0, torch.where(apart == 0, 1, apart).sqrt())
    different = labels[:, None] != labels
    loss = 1000 - apart[different].mean()  # the only positives are equal, and every term counts
    expected = (loss.detach(), torch.autograd.grad(loss, leaf)[0])
    for one, other in zip(found, expected, strict=True):
        assert distance(one, other) <= 1.01 * rounding(torch.float32, 1)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("sequence", [0, 5], ids=["with positives", "alone"])
def test_embeddings_that_are_not_finite_are_not_swallowed(wrong: float, sequence: int) -> None:
    embeddings = normal(6, 3, 4).float()
    embeddings[sequence, 1, 2] = wrong
    loss, gradient = of_package(embeddings, LABELS)
    assert loss.isnan()
    assert gradient[:, 1].isnan().all()
    assert gradient[:, ::2].isfinite().all()
    with torch.no_grad():
        assert losses.triplet_loss(embeddings, LABELS).isnan()
        assert losses.triplet_loss(embeddings, torch.zeros(6, dtype=torch.long)).isnan()


def test_triplet_gradient_may_be_left_out_or_taken_twice() -> None:
    embeddings = normal(6, 3, 4).requires_grad_()
    loss = losses.triplet_loss(embeddings, LABELS)
    assert not losses.triplet_loss(embeddings.detach(), LABELS).requires_grad
    (3 * loss).backward(retain_graph=True)
    (2 * loss).backward()
    torch.testing.assert_close(embeddings.grad, 5 * of_package(embeddings.detach(), LABELS)[1])
    with pytest.raises(
        RuntimeError, match=r"triplet_loss has first derivatives only .* use hstl_fast\.reference\.triplet_loss"
    ):
        torch.autograd.grad(losses.triplet_loss(embeddings, LABELS), embeddings, create_graph=True)


def test_triplet_loss_under_transforms() -> None:
    embeddings = normal(6, 3, 4)
    found = torch.func.grad(lambda x: losses.triplet_loss(x, LABELS))(embeddings)
    assert distance(found, of_package(embeddings, LABELS)[1]) <= rounding(torch.float64, 4 + 6**3)


def test_triplet_loss_compiles_to_one_operator() -> None:
    from functorch.compile import make_boxed_func  # both take seconds to import
    from torch._dynamo.backends.common import aot_autograd

    embeddings = normal(6, 3, 4).requires_grad_()
    sizes: list[int] = []

    def compiler(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        sizes.append(sum(node.op.startswith("call") for node in graph.graph.nodes))
        return make_boxed_func(graph)

    torch._dynamo.reset()
    backend = aot_autograd(fw_compiler=compiler)
    compiled = torch.compile(lambda x: losses.triplet_loss(x, LABELS), fullgraph=True, backend=backend)
    (gradient,) = torch.autograd.grad(compiled(embeddings), embeddings)
    assert torch.equal(gradient, of_package(embeddings.detach(), LABELS)[1])
    assert len(sizes) == 2
    assert sum(sizes) < 10
    for with_gradient in (True, False):
        arguments = (embeddings.detach(), UNEQUAL[:6], 0.2, with_gradient)
        torch.library.opcheck(torch.ops.hstl_fast.triplet_loss.default, arguments)


def test_triplet_loss_is_deterministic() -> None:
    embeddings = torch.randn(40, 5, 64, generator=torch.Generator().manual_seed(3))
    labels, threads = torch.arange(40) % 5, torch.get_num_threads()
    first = of_package(embeddings, labels)
    try:
        torch.set_num_threads(2)
        for one, other in zip(of_package(embeddings, labels), first, strict=True):
            assert distance(one, other) <= rounding(torch.float32, 1)
        torch.set_num_threads(threads)
        assert all(map(torch.equal, of_package(embeddings, labels), first))
    finally:
        torch.set_num_threads(threads)


class Watch(TorchDispatchMode):
    """Notes the inputs of batched matrix products and the sizes of all results."""

    def __init__(self) -> None:
        super().__init__()
        self.types: list[torch.dtype] = []
        self.sizes: list[int] = []

    def __torch_dispatch__(
        self, function: Any, _: Any, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None
    ) -> Any:
        if function is torch.ops.aten.bmm.default:
            self.types.extend(argument.dtype for argument in arguments)
        result = function(*arguments, **(keywords or {}))
        results = result if isinstance(result, tuple) else (result,)
        self.sizes.extend(x.numel() for x in results if isinstance(x, Tensor))
        return result


def test_matrix_products_are_computed_in_float64() -> None:
    """Settings such as `torch.set_float32_matmul_precision` let accelerators multiply float32 in narrower types."""
    with Watch() as watch, torch.autocast("cpu", dtype=torch.bfloat16):
        triplet._compute(normal(6, 3, 4).float(), LABELS, 0.2, with_gradient=True)
    assert watch.types == 4 * [torch.float64]


def test_no_tensor_holds_all_triplets() -> None:
    with Watch() as watch:
        triplet._compute(normal(40, 3, 4), torch.arange(40) % 5, 0.2, with_gradient=True)
    assert max(watch.sizes) == 3 * 40 * 40


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
