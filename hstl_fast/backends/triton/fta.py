"""FTA in two passes over its input, means and then the gated sum: the two pooled maps are never in memory."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from hstl_fast.backends.tables import frames_table, region_of_rows, regions_table, windows_table
from hstl_fast.backends.triton.launch import on_device_of, wide
from hstl_fast.layout import empty_map, frames_of


@triton.jit
def _replaces(value, best):
    """Whether a later value becomes the maximum: NaN does, as in torch."""
    return ((value > best) | (value != value)) & (best == best)


@triton.jit
def _later(best, best_frame, value, frame: tl.constexpr):
    better = _replaces(value, best)
    return tl.where(better, value, best), tl.where(better, frame, best_frame)


@triton.jit
def _maxima(v0, v1, v2, v3, v4):
    """The maxima of a window and the frames 0..4 that attain them first: a of the inner three frames, b of all five."""
    a, a_frame = v1, tl.full(v1.shape, 1, tl.int32)
    a, a_frame = _later(a, a_frame, v2, 2)
    a, a_frame = _later(a, a_frame, v3, 3)
    better = _replaces(a, v0)
    b, b_frame = tl.where(better, a, v0), tl.where(better, a_frame, 0)
    b, b_frame = _later(b, b_frame, v4, 4)
    return a, b, a_frame, b_frame


@triton.jit
def _frame(x, frame, first, last, size, offsets, mask):
    """The elements of one frame, -inf where the sequence has no such frame, 0 where the mask is False."""
    exists = (frame >= first) & (frame <= last)
    value = tl.load(x + wide(frame) * size + offsets, mask=mask & exists, other=0).to(tl.float32)
    return tl.where(exists, value, float("-inf"))


@triton.jit
def _window_maxima(x, windows, window, size, offsets, mask):
    """The maxima a and b of one window; 0 where the mask is False."""
    frame = tl.load(windows + 3 * window)
    first, last = tl.load(windows + 3 * window + 1), tl.load(windows + 3 * window + 2)
    a, b, _, _ = _maxima(
        _frame(x, frame - 1, first, last, size, offsets, mask),
        _frame(x, frame, first, last, size, offsets, mask),
        _frame(x, frame + 1, first, last, size, offsets, mask),
        _frame(x, frame + 2, first, last, size, offsets, mask),
        _frame(x, frame + 3, first, last, size, offsets, mask),
    )
    return a, b


@triton.jit
def _sum_regions(
    sums,  # [windows, m, c] float32, out
    x,  # [frames, h, w, c]
    grad,  # [windows, h, w, c], or anything, if BACKWARD is 0
    windows,
    regions,
    region_count,
    support,  # [windows, h, w], or anything, if SPARSE is 0
    height,
    width,
    C: tl.constexpr,
    BACKWARD: tl.constexpr,
    SPARSE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """The sum over one region of a + b, or of grad (a - b). Bytes: five frames, of which two are a neighbour's too."""
    unit = tl.program_id(0)
    window, region = unit // region_count, unit % region_count
    first = tl.load(regions + 2 * region) * width
    positions = tl.load(regions + 2 * region + 1) * width
    col = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    size = height * width * C
    total = tl.zeros([BLOCK_N], tl.float32)
    for begin in range(0, positions, BLOCK_M):
        row = begin + tl.arange(0, BLOCK_M)
        active = row < positions
        if SPARSE:
            place = wide(window) * (height * width) + first + row
            active &= tl.load(support + place, mask=active, other=0) != 0
        mask = active[:, None] & (col < C)[None, :]
        offsets = ((first + row) * C)[:, None] + col[None, :]
        a, b = _window_maxima(x, windows, window, size, offsets, mask)
        if BACKWARD:
            g = tl.load(grad + wide(window) * size + offsets, mask=mask, other=0).to(tl.float32)
            terms = g * (a - b)
        else:
            terms = a + b
        total += tl.sum(tl.where(mask, terms, 0), 0)
    tl.store(sums + wide(unit) * C + col, total, mask=col < C)


@triton.jit
def _mix(
    y,  # [windows, h, w, c], out
    x,
    share,  # [windows, m, c] float32
    windows,
    region_of_row,
    region_count,
    support,
    frame_size,
    row_size,  # w c
    C: tl.constexpr,
    SPARSE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The output share a + (1 - share) b of one window, and 0 outside the support.

    Bytes: five frames read, of which two are a neighbour's too, one written.
    """
    window = tl.program_id(0)
    element = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = element < frame_size
    active = inside
    if SPARSE:
        place = wide(window) * (frame_size // C) + element // C
        active &= tl.load(support + place, mask=inside, other=0) != 0
    region = tl.load(region_of_row + element // row_size, mask=inside, other=0)
    a, b = _window_maxima(x, windows, window, frame_size, element, active)
    s = tl.load(share + (wide(window) * region_count + region) * C + element % C, mask=active, other=0)
    mixed = tl.where(active, s * a + (1 - s) * b, 0)
    tl.store(y + wide(window) * frame_size + element, mixed.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _put(gx, frame, size, element, value, mask):
    tl.store(gx + wide(frame) * size + element, value.to(gx.dtype.element_ty), mask=mask)


@triton.jit
def _backward(
    gx,  # [frames, h, w, c], out
    grad,  # [windows, h, w, c]
    x,
    share,  # [windows, m, c]
    gmean,  # [windows, m, c]: the gradient of a and of b through the region's mean
    starts,  # of sequences
    window_starts,
    region_of_row,
    region_count,
    support,
    frame_size,
    row_size,
    C: tl.constexpr,
    SPARSE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The gradients of some elements through one sequence, window by window.

    A window's last two frames are the next one's first two. Bytes: each frame read and written once, and grad read.
    """
    sequence = tl.program_id(0)
    element = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = element < frame_size
    region = tl.load(region_of_row + element // row_size, mask=inside, other=0)
    first, last = tl.load(starts + sequence), tl.load(starts + sequence + 1) - 1
    first_window = tl.load(window_starts + sequence)
    count = tl.load(window_starts + sequence + 1) - first_window
    v0 = tl.full([BLOCK], float("-inf"), tl.float32)
    v1 = _frame(x, first, first, last, frame_size, element, inside)
    held = tl.zeros([BLOCK], tl.float32)  # the gradient so far of the frame before the window's second one
    carried = tl.zeros([BLOCK], tl.float32)  # the gradient of the window's second frame from the window before
    for i in range(count):
        window = wide(first_window + i)
        frame = first + 3 * i
        active = inside
        if SPARSE:
            place = window * (frame_size // C) + element // C
            active &= tl.load(support + place, mask=inside, other=0) != 0
        v2 = _frame(x, frame + 1, first, last, frame_size, element, inside)
        v3 = _frame(x, frame + 2, first, last, frame_size, element, inside)
        v4 = _frame(x, frame + 3, first, last, frame_size, element, inside)
        _, _, a_frame, b_frame = _maxima(v0, v1, v2, v3, v4)
        g = tl.load(grad + window * frame_size + element, mask=active, other=0).to(tl.float32)
        gate = (window * region_count + region) * C + element % C
        s = tl.load(share + gate, mask=active, other=0)
        through_mean = tl.load(gmean + gate, mask=active, other=0)
        ga = s * g + through_mean
        gb = (1 - s) * g + through_mean
        _put(gx, frame - 1, frame_size, element, held + tl.where(b_frame == 0, gb, 0), inside & (i > 0))
        second = tl.where(a_frame == 1, ga, 0) + tl.where(b_frame == 1, gb, 0)
        _put(gx, frame, frame_size, element, carried + second, inside)
        third = tl.where(a_frame == 2, ga, 0) + tl.where(b_frame == 2, gb, 0)
        _put(gx, frame + 1, frame_size, element, third, inside)
        held = tl.where(a_frame == 3, ga, 0) + tl.where(b_frame == 3, gb, 0)
        carried = tl.where(b_frame == 4, gb, 0)
        v0, v1 = v3, v4
    frame = first + 3 * count
    _put(gx, frame - 1, frame_size, element, held, inside)
    _put(gx, frame, frame_size, element, carried, inside & (frame <= last))
    _put(gx, frame + 1, frame_size, element, tl.zeros([BLOCK], tl.float32), inside & (frame + 1 <= last))


# Elements of a map that a program reads of every frame.
BLOCK = 1024
# Positions that a program reads at once while it sums a region.
BLOCK_M = 16


def forward(
    x: Tensor, weights: Tensor, biases: Tensor, support: Tensor | None, split: list[int], seq_lens: list[int]
) -> tuple[Tensor, Tensor]:
    """The output, [n, c, t', h, w], and the regions' means of a + b, float32 [windows, m, c].

    Weights and biases are float32; the support is that of the output.
    """
    n, c, _, h, w = x.shape
    means = _sums(x, None, support, split, seq_lens) / _positions(split, x)
    share = _share(means, weights, biases)
    windows = windows_table(frames_of(x, seq_lens), x.device)
    y = empty_map(x, n, c, len(windows.ends) // n, h, w)
    with on_device_of(x):
        _mix[(len(windows.ends), triton.cdiv(h * w * c, BLOCK))](
            y,
            x,
            share,
            windows.ends,
            region_of_rows(split, x.device),
            len(split),
            share if support is None else support.contiguous().view(torch.int8),
            h * w * c,
            w * c,
            C=c,
            SPARSE=int(support is not None),
            BLOCK=BLOCK,
        )
    return y, means


def backward(
    grad: Tensor,
    x: Tensor,
    means: Tensor,
    weights: Tensor,
    biases: Tensor,
    support: Tensor | None,
    split: list[int],
    seq_lens: list[int],
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of `x`, weights and biases, these two float32."""
    _, c, _, h, w = x.shape
    lens = frames_of(x, seq_lens)
    share = _share(means, weights, biases)
    gu = _sums(x, grad, support, split, seq_lens) * share * (1 - share)
    by_region = gu.transpose(0, 1)  # m windows c
    gmean = (by_region @ (weights[:, 0] - weights[:, 1])).transpose(0, 1) / _positions(split, x)
    gweights = by_region.transpose(1, 2) @ means.transpose(0, 1)
    gbiases = gu.sum(0)
    gx = empty_map(x, *x.shape)
    with on_device_of(x):
        _backward[(len(lens), triton.cdiv(h * w * c, BLOCK))](
            gx,
            grad,
            x,
            share,
            gmean.contiguous(),
            frames_table(lens, x.device).starts,
            windows_table(lens, x.device).starts,
            region_of_rows(split, x.device),
            len(split),
            share if support is None else support.contiguous().view(torch.int8),
            h * w * c,
            w * c,
            C=c,
            SPARSE=int(support is not None),
            BLOCK=BLOCK,
        )
    return gx, torch.stack([gweights, -gweights], 1), torch.stack([gbiases, -gbiases], 1)


def _sums(x: Tensor, grad: Tensor | None, support: Tensor | None, split: list[int], seq_lens: list[int]) -> Tensor:
    """The sums over every region, float32 [windows, m, c]: of a + b, or of grad (a - b)."""
    _, c, _, h, w = x.shape
    windows = windows_table(frames_of(x, seq_lens), x.device).ends
    sums = torch.empty((len(windows), len(split), c), dtype=torch.float32, device=x.device)
    block_n = min(max(triton.next_power_of_2(c), 16), 64)
    with on_device_of(x):
        _sum_regions[(len(windows) * len(split), triton.cdiv(c, block_n))](
            sums,
            x,
            x if grad is None else grad,
            windows,
            regions_table(split, x.device),
            len(split),
            sums if support is None else support.contiguous().view(torch.int8),
            h,
            w,
            C=c,
            BACKWARD=int(grad is not None),
            SPARSE=int(support is not None),
            BLOCK_M=BLOCK_M,
            BLOCK_N=block_n,
        )
    return sums


def _positions(split: list[int], x: Tensor) -> Tensor:
    """The number of positions of each region, float32 [m, 1]."""
    return (regions_table(split, x.device)[:, 1:] * x.shape[4]).float()


def _share(means: Tensor, weights: Tensor, biases: Tensor) -> Tensor:
    """The first of the softmax's two outputs, [windows, m, c]: the sigmoid of the two logits' difference."""
    difference = (weights[:, 0] - weights[:, 1]).contiguous()  # m c c
    logits = means.transpose(0, 1) @ difference.transpose(1, 2)
    return torch.sigmoid(logits.transpose(0, 1) + (biases[:, 0] - biases[:, 1])).contiguous()
