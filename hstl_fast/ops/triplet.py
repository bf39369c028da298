"""The batch-all triplet loss without a tensor of all triplets: operator, autograd and the function that the loss calls.

A term of the loss belongs to an anchor, one of its positives and one of its negatives. The terms of a part are computed
positive by positive: a tensor of anchors and negatives at a time, added up and overwritten by the next. The gradient of
a part is computed at the same time, when its distances are at hand, so that nothing but the gradient is saved.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hstl_fast import reference
from hstl_fast._torch_private import under_transforms
from hstl_fast.ops._autograd import pad_with_none
from hstl_fast.ops._library import LIBRARY, TAGS, without_autocast

# Bytes of a tensor of anchors and negatives of the parts that are computed together, if one part needs no more: few
# enough for a processor's cache, and enough to occupy an accelerator.
_BYTES_ON_CPU, _BYTES_ON_ACCELERATOR = 4 << 20, 64 << 20

_FIRST_DERIVATIVE_ONLY = (
    "triplet_loss has first derivatives only (no create_graph=True); for second derivatives use "
    "hstl_fast.reference.triplet_loss"
)
# The gradient is that of the loss with respect to the embeddings, and empty unless it is wanted.
LIBRARY.define(
    "triplet_loss(Tensor embeddings, Tensor labels, float margin, bool with_gradient)"
    " -> (Tensor loss, Tensor gradient)",
    tags=TAGS,
)


@torch.library.register_fake("hstl_fast::triplet_loss", lib=LIBRARY)
def _fake(embeddings: Tensor, labels: Tensor, margin: float, with_gradient: bool) -> tuple[Tensor, Tensor]:
    dtype = _result_dtype(embeddings)
    shape = embeddings.shape if with_gradient else (0,)
    return embeddings.new_empty((), dtype=dtype), embeddings.new_empty(shape, dtype=dtype)


def _compute(embeddings: Tensor, labels: Tensor, margin: float, with_gradient: bool) -> tuple[Tensor, Tensor]:
    n, parts, _ = embeddings.shape
    result_dtype, dtype = _result_dtype(embeddings), _computing_dtype(embeddings)
    gradient = embeddings.new_empty(embeddings.shape if with_gradient else (0,), dtype=result_dtype)
    losses = embeddings.new_empty((parts,), dtype=dtype)
    size = _BYTES_ON_CPU if embeddings.device.type == "cpu" else _BYTES_ON_ACCELERATOR
    step = max(1, size // max(1, n * n * dtype.itemsize))
    with torch.no_grad(), without_autocast(embeddings):
        groups = _Groups.of(labels, embeddings.device)
        for start in range(0, parts, step):
            chunk = slice(start, start + step)
            x = embeddings[:, chunk].index_select(0, groups.order).transpose(0, 1).to(dtype)  # p n c
            losses[chunk], found = _of_parts(x, groups, margin, with_gradient)
            if found is not None:
                gradient[:, chunk] = (found / parts).transpose(0, 1).index_select(0, groups.places).to(result_dtype)
    return losses.mean().to(result_dtype), gradient


torch.library.impl("hstl_fast::triplet_loss", "CompositeExplicitAutograd", _compute, lib=LIBRARY)


class _Groups(NamedTuple):
    """Sequences grouped by identity, the largest identities first.

    The positives of the sequence in place i are taken in the order of a circle that begins with i itself.

    order: of a place in the groups, the sequence. places: of a sequence, its place. starts, sizes: of every place, the
    first place of its group and how many are in it. active: for every k, how many places have more than k in their
    group.
    """

    order: Tensor
    places: Tensor
    starts: Tensor
    sizes: Tensor
    active: list[int]

    @classmethod
    def of(cls, labels: Tensor, device: torch.device) -> _Groups:
        """Group the sequences for embeddings on `device`; labels on an accelerator are waited for."""
        _, identity, counts = torch.unique(labels.cpu(), return_inverse=True, return_counts=True)
        by_size = counts.argsort(descending=True, stable=True)
        order = by_size.argsort()[identity].argsort(stable=True)
        sizes = counts[by_size]
        starts = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
        of_places = sizes.repeat_interleave(sizes)
        larger = len(labels) - torch.bincount(of_places).cumsum(0)
        order, places, starts, of_places = (
            tensor.to(device, non_blocking=True) for tensor in (order, order.argsort(), starts, of_places)
        )
        return cls(order, places, starts, of_places, larger[:-1].tolist())

    def positives(self) -> Iterator[Tensor]:
        """The places of every anchor's k-th positive, for every k; the first places only, if others have no more.

        One group alone has no negatives, and nothing to compute.
        """
        if len(self.active) == len(self.order):
            return
        places = torch.arange(len(self.order), device=self.order.device)
        for k, count in enumerate(self.active):
            yield self.starts[:count] + (places - self.starts + k)[:count].remainder(self.sizes[:count])

    def same(self) -> Tensor:
        """`[n, n]`: whether two places belong to one group."""
        return self.starts[:, None] == self.starts


def triplet_loss(embeddings: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Compute the loss of checked arguments; `hstl_fast.losses.triplet_loss` describes it.

    Args:
        embeddings: `[N, P, C]`.
        labels: Integers `[N]`.
        margin: The margin.

    Returns:
        A scalar.
    """
    if under_transforms():
        return reference.triplet_loss(embeddings, labels, margin)
    loss: Tensor
    if torch.is_grad_enabled() and embeddings.requires_grad:
        loss = _TripletLoss.apply(embeddings, labels, margin)
    else:
        loss, _ = torch.ops.hstl_fast.triplet_loss(embeddings, labels, margin, False)
    return loss


class _TripletLoss(torch.autograd.Function):
    """Saves the gradient, which forward has computed beside the loss."""

    @staticmethod
    def forward(ctx: Any, embeddings: Tensor, labels: Tensor, margin: float) -> Tensor:
        loss: Tensor
        loss, gradient = torch.ops.hstl_fast.triplet_loss(embeddings, labels, margin, True)
        ctx.save_for_backward(gradient)
        ctx.dtype = embeddings.dtype
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise RuntimeError(_FIRST_DERIVATIVE_ONLY)
        (gradient,) = ctx.saved_tensors
        return pad_with_none(ctx, (gradient * grad).to(ctx.dtype))


def _of_parts(x: Tensor, groups: _Groups, margin: float, with_gradient: bool) -> tuple[Tensor, Tensor | None]:
    """The losses `[p]` of grouped embeddings `[p, n, c]`, and the gradient `[p, n, c]` of their sum."""
    distance, norms = _distances(x)
    to_negative = distance.masked_fill(groups.same(), float("inf"))
    # No order and no count swallows an embedding that is not finite.
    poison = norms.sum(1) * 0
    sums, counts = torch.zeros_like(norms), torch.zeros_like(norms)  # p anchor
    terms_of_all, slopes = torch.empty_like(distance), torch.zeros_like(distance)  # p anchor negative
    for index in groups.positives():
        first = len(index)
        column = index[None, :, None].expand(len(x), -1, 1)
        limit = distance[:, :first].gather(2, column) + margin
        terms = torch.sub(limit, to_negative[:, :first], out=terms_of_all[:, :first]).clamp_min_(0)
        sums[:, :first] += terms.sum(2)
        terms.sign_()
        count = terms.sum(2)
        counts[:, :first] += count
        if with_gradient:
            slopes[:, :first] -= terms
            slopes[:, :first].scatter_(2, column, count[:, :, None])
    # Each anchor's count is exact, and so is the sum of integers.
    total = counts.to(torch.int64).sum(1).clamp(min=1).to(x.dtype)
    loss = sums.sum(1) / total + poison
    if not with_gradient:
        return loss, None
    slopes /= distance.masked_fill_(distance == 0, float("inf"))
    slopes += slopes.mT.clone()
    gradient = slopes.sum(2, keepdim=True) * x - slopes @ x
    return loss, gradient / total[:, None, None] + poison[:, None, None]


def _distances(x: Tensor) -> tuple[Tensor, Tensor]:
    """Euclidean distances `[p, n, n]` and squared norms `[p, n]` of `x` `[p, n, c]`.

    The squared distance `|x|^2 + |y|^2 - 2xy` of equal embeddings is a rounding error, which the root and its gradient
    would magnify: what cannot be told from zero is zero.
    """
    products = x @ x.mT
    norms = products.diagonal(dim1=1, dim2=2).clone()
    scale = norms[:, :, None] + norms[:, None, :]
    squared = products.mul_(-2).add_(scale)
    unresolved = squared <= scale * (torch.finfo(x.dtype).eps * x.shape[2])
    return squared.masked_fill_(unresolved, 0).sqrt_(), norms


def _result_dtype(embeddings: Tensor) -> torch.dtype:
    return torch.promote_types(embeddings.dtype, torch.float32)


def _computing_dtype(embeddings: Tensor) -> torch.dtype:
    """The type of distances, which cancel: in float64, no setting lets torch multiply in a narrower type."""
    return torch.float32 if embeddings.device.type == "mps" else torch.float64
