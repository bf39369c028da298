"""What the machine is and the most it does, measured beside the results."""

import importlib.metadata
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from benchmarks.core.interleaving import timed
from hstl_fast import info

SIZE = 2048
"""Rows and columns of the matrices multiplied."""
COPIED = 64 * 2**20
"""Numbers in the tensor copied: 256 MiB, more than any cache holds."""


PEERS = ("onnx", "onnxruntime", "openvino")
"""Packages whose versions belong to the results."""


_FOLDER = r"[\w.+-]+(?: [\w.+-]+)?"
_FOLDERS = re.compile(rf"(?:/{_FOLDER})+/|(?<!\w)[A-Za-z]:[\\/]+(?:{_FOLDER}[\\/]+)*")
"""Of a path, in the manner of Unix or of Windows; a folder's name may have a space in it."""


def description() -> dict[str, Any]:
    """Versions, processor, threads and instruction sets, as `hstl-fast info` knows them."""
    known = info.collect()
    del known["backends"]  # what could have run; the rivals say what did
    del known["caches"]  # what this process holds at the moment
    return {
        **known,
        "peers": {name: _version(name) for name in PEERS},
        "onednn": _onednn(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def anonymous(text: str) -> str:
    """The text in one line, without the folders of this machine."""
    return _FOLDERS.sub("", " ".join(text.split()))


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Let torch, and what asks it, compute with so many threads; None leaves them alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def peaks(repeats: int = 7) -> dict[str, float | None]:
    """The machine's own best: matrix products in float32 and, where the processor has it, bfloat16, and a copy (bytes
    read and written)."""
    source, target = torch.randn(COPIED), torch.empty(COPIED)
    bfloat16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return {
        "float32_gflop_per_second": _product(torch.float32, repeats),
        "bfloat16_gflop_per_second": _product(torch.bfloat16, repeats) if bfloat16 else None,
        "copy_gbyte_per_second": 2 * 4 * COPIED / _best(lambda: target.copy_(source), repeats) / 1e9,
    }


def best(before: dict[str, float | None], after: dict[str, float | None]) -> dict[str, float | None]:
    """The higher of two measurements of `peaks`."""
    return {name: rate and max(rate, after[name] or 0.0) for name, rate in before.items()}


def _product(dtype: torch.dtype, repeats: int) -> float:
    a, b, c = torch.randn(3, SIZE, SIZE).to(dtype)
    return 2 * SIZE**3 / _best(lambda: torch.mm(a, b, out=c), repeats) / 1e9


def _best(call: Callable[[], object], repeats: int) -> float:
    call()
    return min(timed(call) for _ in range(repeats))


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _onednn() -> str | None:
    lines = torch.__config__.show().splitlines()
    return next((line.strip(" -") for line in lines if "MKL-DNN" in line or "oneDNN" in line), None)
