"""The machine that results are measured on: its description and its threads."""

import importlib.metadata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from benchmarks.core import processor
from hstl_fast import info

# Packages whose versions belong to the results.
PEERS = ("onnx", "onnxruntime", "openvino", "nncf", "zentorch", "faiss-cpu")


def description() -> dict[str, Any]:
    """Versions, processor, threads and instruction sets, as `hstl-fast info` knows them."""
    known = info.collect()
    del known["backends"]  # what could have run; the implementations say what did
    del known["caches"], known["wrong_variables"]  # of this process at the moment
    del known["extras"]  # packages that nothing here uses
    return {
        **known,
        "processor": processor.description(),
        "peers": {name: _version(name) for name in PEERS},
        "onednn": _onednn(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Let torch, and what asks it, compute with so many threads in the block; None leaves them as they are."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _onednn() -> str | None:
    lines = torch.__config__.show().splitlines()
    return next((line.strip(" -") for line in lines if "MKL-DNN" in line or "oneDNN" in line), None)
