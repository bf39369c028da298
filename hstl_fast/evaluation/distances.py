"""Distances between sequences, each given by one embedding per part."""

from __future__ import annotations

import functools
import logging
from types import ModuleType

import torch
from torch import Tensor

from hstl_fast import options
from hstl_fast.backends.cpu import distances as native
from hstl_fast.backends.cpu import library
from hstl_fast.evaluation import product_form

# The distances of two embeddings that `part_distances` knows.
METRICS = ("euclidean", "cosine")
# Probes that are compared at a time, so that their copy in the kernel's layout stays small.
_PROBES_AT_ONCE = 1024
# Sequences whose mean is the centre.
_SAMPLE = 256

_logger = logging.getLogger(__name__)


def part_distances(probe: Tensor, gallery: Tensor, metric: str = "euclidean") -> Tensor:
    """Compute the distance of every probe to every gallery sequence: the mean distance of their parts.

    Equivalent to

        torch.stack([torch.cdist(probe[:, p], gallery[:, p]) for p in range(P)]).mean(0)

    which is how OpenGait evaluates. It is computed natively on the CPU where that code was built and no context asks
    for the reference, else by matrix products in torch, in the precision that torch is set to. Pairs of parts that
    products would blur are computed from differences, so that equal embeddings have a Euclidean distance of exactly 0.
    No gradient flows.

    Args:
        probe: Embeddings `[n, P, C]` of a floating type, finite.
        gallery: Embeddings `[k, P, C]` of the same type, on the same device.
        metric: `euclidean`, |a - b|, or `cosine`, 1 - cos(a, b); a zero vector has cosine 0 with every vector.

    Returns:
        Distances `[n, k]` of the same type. Beside them, up to 300 MiB of memory are used.

    Raises:
        ValueError: The metric is unknown, the shapes or types do not fit together, or an embedding has NaN or infinity
            in it; the message names its row.
    """
    check_metric(metric)
    check_shapes(probe, gallery)
    probe, gallery = probe.detach(), gallery.detach()
    out = probe.new_empty(len(probe), len(gallery))
    if not out.numel():
        return out
    if probe.dtype not in (torch.float32, torch.float64):
        return part_distances(probe.float(), gallery.float(), metric).to(probe.dtype)
    probe, gallery = probe.contiguous(), gallery.contiguous()
    compute, centre = implementation(probe), centre_of(gallery)
    for name, embeddings in (("gallery", gallery), ("probe", probe)):
        norms(name, embeddings, centre, compute)
    order = torch.arange(len(gallery), device=gallery.device)
    for some, into in zip(probe.split(_PROBES_AT_ONCE), out.split(_PROBES_AT_ONCE), strict=True):
        compute.part_distances(some, gallery, order, centre, metric == "cosine", into)
    return out


def check_metric(metric: str) -> None:
    """Check the name of a metric.

    Args:
        metric: A name.

    Raises:
        ValueError: It is none of `METRICS`.
    """
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}; got {metric!r}")


def check_shapes(probe: Tensor, gallery: Tensor) -> None:
    """Check that embeddings can be compared.

    Args:
        probe: Embeddings.
        gallery: Other embeddings.

    Raises:
        ValueError: They have not the same parts, channels, type and device, or the type is not floating.
    """
    if probe.ndim != 3 or gallery.ndim != 3 or probe.shape[1:] != gallery.shape[1:] or 0 in probe.shape[1:]:
        raise ValueError(
            "probe and gallery must be [n, P, C] and [k, P, C] with the same parts and channels; "
            f"got {list(probe.shape)} and {list(gallery.shape)}"
        )
    if not probe.is_floating_point() or (probe.dtype, probe.device) != (gallery.dtype, gallery.device):
        raise ValueError(
            "probe and gallery must have the same floating type and the same device; "
            f"got {probe.dtype} on {probe.device} and {gallery.dtype} on {gallery.device}"
        )


def centre_of(gallery: Tensor) -> Tensor:
    """Find a point amid a gallery: norms from there are small, so that products blur distances little.

    Args:
        gallery: Embeddings `[k, P, C]`.

    Returns:
        The mean `[P, C]` of some of them; zeros where there are none.
    """
    if not len(gallery):
        return gallery.new_zeros(gallery.shape[1:])
    return gallery[:: max(1, len(gallery) // _SAMPLE)].double().mean(0).to(gallery.dtype)


def norms(name: str, embeddings: Tensor, centre: Tensor, compute: ModuleType) -> Tensor:
    """Compute the Euclidean distances of embeddings from a centre, and check that the embeddings are finite.

    Args:
        name: The argument's name, for the message.
        embeddings: Embeddings `[n, P, C]`.
        centre: A point `[P, C]`.
        compute: What `implementation` chose.

    Returns:
        The means over the parts, float64 `[n]`; infinite or NaN where they overflow.

    Raises:
        ValueError: An embedding has NaN or infinity in it; the message names the first such row.
    """
    rows = torch.arange(len(embeddings), device=embeddings.device)
    means: Tensor = compute.pair_distances(embeddings, centre[None], rows, torch.zeros_like(rows), False)
    for row in means.isfinite().logical_not_().nonzero()[:, 0].tolist():
        if not embeddings[row].isfinite().all():
            raise ValueError(f"{name} must be finite; got NaN or infinity in {name}[{row}]")
    return means


def implementation(embeddings: Tensor) -> ModuleType:
    """Choose what computes distances: the backend of the context or the environment, or automatically.

    Args:
        embeddings: Embeddings that will be compared.

    Returns:
        A module with functions `part_distances` and `pair_distances`: native code or torch.

    Raises:
        ValueError: A variable of the environment has a wrong value.
        RuntimeError: The backend `cpu` is asked for by name and was not built.
    """
    backend = options.BACKEND.value()
    if backend == "reference" or embeddings.device.type != "cpu":
        return product_form
    if library.wrong_setting() is None and library.cpu() is None and backend != "cpu":
        _say_once(f"distances are computed by torch: {library.cpu_error()}")
        return product_form
    library.require_cpu()
    return native


@functools.cache
def _say_once(line: str) -> None:
    _logger.warning(line)
