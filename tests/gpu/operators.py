"""Operators at odd and at published sizes, with inputs that leave no doubt about the right answer."""

import functools
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.core import flops
from benchmarks.core.correctness import Answer, Bounds, Errors, errors
from benchmarks.gpu import clips, numerics
from benchmarks.gpu.numerics import Numerics, double
from benchmarks.gpu.workloads import OUTPUT_BOUNDS
from hstl_fast import functional, reference
from hstl_fast.ops import _dispatch
from tests.gpu.rule import Verdict, verdict

NAMES = ("arme", "astp", "astp without proj", "strip_pool", "fta")
# Names by which a backend is asked whether it computes the operator, where they differ.
DISPATCHED = {"astp without proj": "astp", "strip_pool": "astp"}
ODD_LENGTHS = (4, 7, 3)


class Size(NamedTuple):
    """The sizes of a feature map and of the operator's output."""

    c_in: int
    c_out: int
    split: tuple[int, ...]
    frames: int
    rows: int
    columns: int


# Multiples of no tile's size, so that every edge of a tile is computed.
ODD = Size(c_in=6, c_out=10, split=(5, 1, 3), frames=14, rows=9, columns=7)


class Case(NamedTuple):
    """An operator at one size.

    lengths: those of packed sequences, () where all have one length. support: whether a support is given.
    """

    operator: str
    size: Size
    lengths: tuple[int, ...] = ()
    support: bool = False

    @property
    def name(self) -> str:
        sizes = f"{self.size.c_in}-{self.size.c_out} {list(self.size.split)}"
        if len(set(self.size.split)) == 1 and len(self.size.split) > 2:
            sizes = f"{self.size.c_in} {len(self.size.split)} strips"
        extent = f"{self.frames}x{self.size.rows}x{self.size.columns}"
        extras = [*(["ragged"] if self.lengths else []), *(["support"] if self.support else [])]
        return ", ".join([f"{self.operator} {sizes} {extent}", *extras])

    @property
    def frames(self) -> int:
        return sum(self.lengths) if self.lengths else self.size.frames

    @property
    def dispatched(self) -> str:
        return DISPATCHED.get(self.operator, self.operator)


class Operands(NamedTuple):
    """Arguments of a function: x, the parameters in its order, the other arguments, and the gradient of its output."""

    x: Tensor
    parameters: Mapping[str, Tensor | None]
    shape: Mapping[str, Any]
    support: Tensor | None
    direction: Tensor


def measure(case: Case, mode: Numerics, backend: str, device: torch.device) -> Verdict:
    """Errors of the operator and of plain torch in this arithmetic, both against float64."""
    given, right = _prepared(case, device)
    with mode.on(device):
        got = answer(functional, case, in_mode(given, mode, device), {"backend": backend})
    bound = OUTPUT_BOUNDS[mode.precision]
    return verdict(distances(got, right), _torch_errors(case, mode, device), mode.precision, Bounds(bound, 2 * bound))


def in_mode(given: Operands, mode: Numerics, device: torch.device) -> Operands:
    """The operands in this arithmetic; under autocast the caller's tensors are float32."""
    return on(given, torch.float32 if mode.autocast else mode.dtype, mode.parameters, device)


def cases(tiny: bool) -> list[Case]:
    """Odd sizes, alone and packed, with and without a support; then the published sizes unless `tiny`."""
    found = []
    for operator in NAMES:
        size = ODD if operator in ("arme", "astp") else ODD._replace(c_out=ODD.c_in)
        size = size._replace(split=(3, 3, 3)) if operator == "strip_pool" else size
        forms = [((), False), (ODD_LENGTHS, False), ((), True), (ODD_LENGTHS, True)]
        found += [Case(operator, size, lengths, support) for lengths, support in forms]
    return found if tiny else found + _published()


def backends(case: Case, device: torch.device, dtype: torch.dtype) -> list[str]:
    """The backends that compute the case's operator for this device and type."""
    return [
        name
        for name in _dispatch.BACKENDS[1:]
        if _dispatch.why_not(case.dispatched, name, device.type, dtype, max(case.lengths or (case.frames,))) is None
    ]


def keys(case: Case, device: torch.device) -> Iterator[tuple[str, Numerics, str]]:
    """Key, arithmetic and backend of each of the case's rows."""
    for mode in numerics.checked(device):
        for backend in backends(case, device, mode.dtype):
            yield f"{case.name} | {mode} | {backend}", mode, backend


def operands(case: Case, device: torch.device) -> Operands:
    """Float64 inputs whose maxima over frames are never tied, and a gradient that keeps off LeakyReLU's kink.

    Odd sizes are computed in float64 on the CPU, so that a device at fault cannot agree with itself.
    """
    random = torch.Generator().manual_seed(zlib.crc32(case.name.encode()))
    size, t = case.size, case.frames
    x = _levels((1 if case.lengths else 2, size.c_in, t, size.rows, size.columns), random)
    support = _support(x, random) if case.support else None
    if support is not None:
        x = x.where(support[:, None], 0)
    given = Operands(x, _parameters(case, random), _shape(case), support, torch.empty(0))
    given = on(given, torch.float64, torch.float64, torch.device("cpu") if size.rows == ODD.rows else device)
    with double().on(device), torch.no_grad():
        y = _call(reference, case, given, {})
    direction = _rounded(torch.randn(y.shape, generator=random, dtype=torch.float64)).to(y.device)
    if case.operator == "arme":
        direction = direction.where(y.abs() > 0.05 * y.abs().max(), 0)
    return given._replace(direction=direction)


def expected(case: Case, given: Operands) -> Answer:
    """The reference's answer in float64."""
    return answer(reference, case, given, {})


def answer(module: Any, case: Case, given: Operands, options: Mapping[str, Any]) -> Answer:
    """Output and gradients of x and every parameter; that of x is defined inside the support only."""
    x = given.x.detach().requires_grad_()
    parameters = {k: None if p is None else p.detach().requires_grad_() for k, p in given.parameters.items()}
    y = _call(module, case, given._replace(x=x, parameters=parameters), options)
    leaves = [x, *(p for p in parameters.values() if p is not None)]
    gx, *others = torch.autograd.grad(y, leaves, given.direction.to(y.dtype))
    return Answer([y.detach()], [gx if given.support is None else gx.where(given.support[:, None], 0), *others])


def distances(got: Answer, right: Answer) -> Errors:
    """Errors of the output and of the worst gradient, computed on the device of `right`."""
    device = right.outputs[0].device
    return errors(Answer(*([tensor.to(device) for tensor in part] for part in got)), right)


def on(given: Operands, dtype: torch.dtype, parameters: torch.dtype, device: torch.device) -> Operands:
    """The operands in other types and on another device."""
    return Operands(
        given.x.to(device, dtype).contiguous(memory_format=torch.channels_last_3d),
        {k: None if p is None else p.to(device, parameters) for k, p in given.parameters.items()},
        given.shape,
        None if given.support is None else given.support.to(device),
        given.direction.to(device),
    )


@functools.lru_cache(maxsize=1)
def _prepared(case: Case, device: torch.device) -> tuple[Operands, Answer]:
    given = operands(case, device)
    with double().on(given.x.device):
        return given, expected(case, given)


@functools.lru_cache(maxsize=16)
def _torch_errors(case: Case, mode: Numerics, device: torch.device) -> Errors:
    given, right = _prepared(case, device)
    with mode.on(device):
        return distances(answer(reference, case, in_mode(given, mode, device), {}), right)


def _call(module: Any, case: Case, given: Operands, options: Mapping[str, Any]) -> Tensor:
    function = getattr(module, "strip_pool" if case.operator == "strip_pool" else case.dispatched)
    seq_lens = list(case.lengths) or None
    y: Tensor = function(
        given.x, *given.parameters.values(), *given.shape.values(), seq_lens=seq_lens, support=given.support, **options
    )
    return y


def _published() -> list[Case]:
    """Each operator and pair of channel counts of the published networks, and the widest of each ragged."""
    found: dict[tuple[object, ...], Case] = {}
    for preset in ("casia-b", "gait3d", "oumvlp"):
        for layer in flops.layers(clips.config(preset, tiny=False), 30):
            operator = "astp without proj" if layer.kind == "astp" and not layer.macs else layer.kind
            if operator != "head":
                size = Size(layer.c_in, layer.c_out, layer.split, layer.frames, layer.rows, layer.columns)
                found.setdefault((operator, layer.c_in, layer.c_out), Case(operator, size))
    widest = {case.operator: case for case in sorted(found.values(), key=lambda case: case.size.c_in)}
    return [*found.values(), *(case._replace(lengths=(4, 10, 19)) for case in widest.values())]


def _parameters(case: Case, random: torch.Generator) -> dict[str, Tensor | None]:
    def normal(*shape: int) -> Tensor:
        return _rounded(torch.randn(shape, generator=random, dtype=torch.float64))

    c_in, c_out, m = case.size.c_in, case.size.c_out, len(case.size.split)
    if case.operator == "arme":
        return {"weights": _rounded(normal(m, c_out, c_in, 3, 3, 3) * (2 / (27 * c_in)) ** 0.5)}
    if case.operator == "fta":
        return {"weights": _rounded(normal(m, 2, c_in, c_in) / c_in**0.5), "biases": normal(m, 2, c_in) / 8}
    p = _rounded(6.5 + normal(1 if case.operator == "strip_pool" else m) / 8)
    if case.operator == "strip_pool":
        return {"p": p}
    return {"proj": None if "without" in case.operator else _rounded(normal(c_out, c_in) / c_in**0.5), "p": p}


def _shape(case: Case) -> dict[str, int | list[int]]:
    split = list(case.size.split)
    return {"bins": len(split)} if case.operator == "strip_pool" else {"split": split}


def _levels(shape: Sequence[int], random: torch.Generator) -> Tensor:
    """Eighths below 32, which every type holds: each frame's its own at every position, and another range at each;
    never 0, which stands for the background."""
    n, c, t, h, w = shape
    order = torch.rand((n, c, h, w, t), generator=random).argsort(-1).movedim(-1, 2)
    levels = order - t // 3 + torch.randint(-8, 9, (n, c, 1, h, w), generator=random)
    return (levels + (levels >= 0)).double() / 8


def _support(x: Tensor, random: torch.Generator) -> Tensor:
    n, _, t, h, w = x.shape
    return torch.rand((n, t, h, w), generator=random) < 0.6


def _rounded(value: Tensor) -> Tensor:
    """The value rounded to numbers that every type holds."""
    return value.bfloat16().to(value.dtype)
