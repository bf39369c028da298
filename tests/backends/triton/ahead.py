"""Compiles every Triton kernel as the launchers call it for the released networks, for GPUs that need not be here.

`python -m tests.backends.triton.ahead TARGET,... DTYPE,...` prints a line of JSON for each: kernel, sizes, registers,
shared memory, spills. Not under TRITON_INTERPRET.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from hstl_fast import PRESETS
from hstl_fast.backends.triton import arme, astp, elementwise, fta, support, tiles
from hstl_fast.models import HSTLConfig

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
    "gfx90a": GPUTarget("hip", "gfx90a", 64),
}
POINTERS = {
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.int32: "*i32",
    torch.int16: "*i16",
    torch.int8: "*i8",
    torch.uint8: "*u8",
}


class Launch(NamedTuple):
    """A kernel and what it is compiled for; `aligned` are the places of the arguments that are multiples of 16."""

    kernel: Any
    signature: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, Any], ...]
    aligned: tuple[int, ...]
    options: tuple[tuple[str, int], ...]

    @property
    def title(self) -> str:
        """The kernel's name and sizes."""
        sizes = " ".join(f"{name}={value}" for name, value in self.constants)
        types = " ".join(sorted({kind[1:] for _, kind in self.signature if kind[0] == "*"} & {"fp16", "bf16", "fp32"}))
        return f"{self.kernel.__name__.removeprefix('_')} {types} {sizes}"


@contextmanager
def launches() -> Iterator[dict[Launch, None]]:
    """A context that notes the launches inside, each once, without running any of them."""
    found: dict[Launch, None] = {}

    def note(kernel: Any, *arguments: Any, grid: Any, warmup: bool, **keywords: Any) -> None:
        found[_launch(kernel, arguments, keywords)] = None

    with mock.patch.object(JITFunction, "run", note):
        yield found


def _launch(kernel: Any, arguments: Sequence[Any], keywords: dict[str, Any]) -> Launch:
    options = {name: keywords.pop(name) for name in ("num_warps", "num_stages") if name in keywords}
    given = dict(zip(kernel.arg_names, arguments, strict=False)) | keywords
    signature, constants, aligned = [], [], []
    for place, parameter in enumerate(kernel.params):
        value = given[parameter.name]
        kind = _kind(value)
        if parameter.is_constexpr or (
            kind == "i32" and value == 1 and not parameter.do_not_specialize
        ):  # as Triton itself does
            kind = "constexpr"
            constants.append((parameter.name, value))
        elif kind[0] == "*" or (kind == "i32" and value % 16 == 0 and not parameter.do_not_specialize):
            aligned.append(place)
        signature.append((parameter.name, kind))
    return Launch(kernel, tuple(signature), tuple(constants), tuple(aligned), tuple(options.items()))


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return POINTERS[value.dtype]
    return "fp32" if isinstance(value, float) else "i32" if isinstance(value, int) else "constexpr"


CAPABILITY = {"sm_80": (8, 0), "sm_90": (9, 0), "sm_100": (10, 0), "gfx942": (0, 0), "gfx90a": (0, 0)}
# Targets for which Triton cannot multiply TF32.
PRECISION = {"gfx90a": "ieee"}


def launches_of_networks(dtype: torch.dtype, target: str, frames: int = 6) -> list[Launch]:
    """All that the released networks launch in one type for a clip, forward and backward."""
    with (
        launches() as found,
        mock.patch.object(arme, "capability", return_value=CAPABILITY[target]),
        mock.patch.object(tiles, "capability", return_value=CAPABILITY[target]),
        mock.patch.object(arme, "precision", return_value=PRECISION.get(target, "tf32")),
        mock.patch.object(astp, "precision", return_value=PRECISION.get(target, "tf32")),
    ):
        for preset in ("casia-b", "oumvlp", "gait3d"):
            _launch_network(PRESETS[preset], dtype, frames)
    return list(found)


def _launch_network(config: HSTLConfig, dtype: torch.dtype, t: int) -> None:
    h, w, c = 64, 44, 1
    inside = torch.ones(1, t, h, w, dtype=torch.bool)
    for c_out in config.stem:
        _launch_arme(c, c_out, [h], t, w, dtype)
        c = c_out
    final = config.stages[-1].channels[-1]
    _launch_astp(c, final, [h], t, w, dtype)
    if config.pool:
        support.max_pool(inside)
        h, w = h // 2, w // 2
    for i, stage in enumerate(config.stages):
        for c_out in stage.channels:
            _launch_arme(c, c_out, list(stage.split), t, w, dtype)
            c = c_out
        _launch_astp(c, None if c == final else final, list(stage.split), t, w, dtype)
        if i == 0:
            _launch_fta(c, list(stage.split), t, w, dtype)
            t //= 3
    _launch_astp(c, None, [h // config.strips] * config.strips, t, w, dtype)


def _map(c: int, split: list[int], t: int, w: int, dtype: torch.dtype) -> Tensor:
    return torch.zeros(1, c, t, sum(split), w, dtype=dtype).contiguous(memory_format=torch.channels_last_3d)


def _supports(split: list[int], t: int, w: int) -> tuple[Tensor | None, ...]:
    inside = torch.ones(1, t, sum(split), w, dtype=torch.bool)
    return None, support.grow(inside, split, [])


def _launch_arme(c_in: int, c_out: int, split: list[int], t: int, w: int, dtype: torch.dtype) -> None:
    x, y = _map(c_in, split, t, w, dtype), _map(c_out, split, t, w, dtype)
    weights = torch.zeros(len(split), c_out, c_in, 3, 3, 3, dtype=dtype)
    for inside in _supports(split, t, w):
        arme.forward(x, weights, inside, split, [], 0.01)
        if c_in == 1:
            arme.forward(x.to(torch.uint8), weights, inside, split, [], 0.01)
        else:
            arme.dgrad(y, weights, inside, split, [])
        arme.wgrad(y, x, inside, split, [])
    elementwise.leaky_backward_(y.clone(), y, 0.01)


def _launch_astp(c_in: int, c_out: int | None, split: list[int], t: int, w: int, dtype: torch.dtype) -> None:
    x = _map(c_in, split, t, w, dtype)
    for inside in _supports(split, t, w):
        maximum, index = astp.frame_maximum(x, inside, [])
    proj, p = None if c_out is None else torch.zeros(c_out, c_in), torch.ones(len(split))
    rows = maximum[:, :, 0].permute(0, 2, 3, 1)
    pooled, _ = astp.forward(rows, proj, p, split)
    astp.backward(pooled, pooled, rows, proj, p, split)
    astp.frame_maximum_backward(maximum, index, list(x.shape), dtype, [])
    astp.frame_maximum_backward_add(x, maximum, index, [])


def _launch_fta(c: int, split: list[int], t: int, w: int, dtype: torch.dtype) -> None:
    x = _map(c, split, t, w, dtype)
    weights, biases = torch.zeros(len(split), 2, c, c), torch.zeros(len(split), 2, c)
    for inside in (None, support.window(torch.ones(1, t, sum(split), w, dtype=torch.bool), [])):
        y, means = fta.forward(x, weights, biases, inside, split, [])
        fta.backward(y, x, means, weights, biases, inside, split, [])


class Resources(NamedTuple):
    """The resources of a compiled kernel: registers of a thread, bytes of shared memory, bytes spilled.

    product: the instruction that multiplies matrices. copies: how many bytes at a time go past the registers into
    shared memory, except by tensor descriptors.
    """

    registers: int
    shared: int
    spilled: int
    product: str | None
    copies: list[int]


def compiled(launch: Launch, target: str) -> Resources:
    """The resources that the kernel takes on a target."""
    names = launch.kernel.arg_names
    source = ASTSource(
        fn=launch.kernel,
        signature=dict(launch.signature),
        constexprs={(names.index(name),): value for name, value in launch.constants},
        attrs={(place,): [["tt.divisibility", 16]] for place in launch.aligned},
    )
    binary = triton.compile(source, target=TARGETS[target], options=dict(launch.options))
    read = _of_amdgcn if target.startswith("gfx") else _of_ptx
    registers, spilled = read(binary.asm, target)
    return Resources(registers, binary.metadata.shared, spilled, _product(binary.asm), _copies(binary.asm))


def _product(asm: dict[str, Any]) -> str | None:
    found = re.search(r"wgmma\.mma_async|tcgen05\.mma|mma\.sync|v_mfma", asm.get("ptx") or asm["amdgcn"])
    return found and found[0]


def _copies(asm: dict[str, Any]) -> list[int]:
    pattern = r"cp\.async\.c[ag]\.shared\.global[^;]*?\], (0x[0-9a-f]+)"
    return sorted({int(size, 16) for size in re.findall(pattern, asm.get("ptx", ""))})


def _of_amdgcn(asm: dict[str, Any], target: str) -> tuple[int, int]:
    def value(name: str) -> int:
        return int(re.search(rf"\.{name}:\s+(\d+)", asm["amdgcn"])[1])

    return value("vgpr_count"), 4 * value("vgpr_spill_count")


def _of_ptx(asm: dict[str, Any], target: str) -> tuple[int, int]:
    """Registers and spills, from ptxas, which tells what the binary does not."""
    architecture = re.search(r"\.target\s+(sm_\w+)", asm["ptx"])[1]
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    blackwell = tools / "ptxas-blackwell"
    tool = blackwell if target == "sm_100" and blackwell.exists() else tools / "ptxas"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernel.ptx")
        source.write_text(asm["ptx"])
        command = [tool, "-v", f"--gpu-name={architecture}", source, "-o", Path(folder, "kernel.cubin")]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    spilled = sum(int(count) for count in re.findall(r"(\d+) bytes spill", said))
    return int(re.search(r"Used (\d+) registers", said)[1]), spilled


def main(targets: Sequence[str], dtypes: Sequence[torch.dtype]) -> None:
    for target in targets:
        for dtype in dtypes:
            for launch in launches_of_networks(dtype, target):
                row = {"kernel": launch.title, "target": target, **compiled(launch, target)._asdict()}
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    targets, types = sys.argv[1].split(","), sys.argv[2].split(",")
    main(targets, [getattr(torch, name) for name in types])
