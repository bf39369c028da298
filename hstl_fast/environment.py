"""The environment variables of hstl_fast: `VARIABLES` describes each one, and a function reads and checks each one.

Variables are read at every call, so that a change takes effect at once; but HSTL_FAST_CPU_ISA is read once, when the
native binary is loaded, and the file that HSTL_FAST_TILES names is read once. An empty variable counts as one that is
not set. A value outside what is allowed raises ValueError that names the variable, what is allowed and what was found,
and, where the allowed values are names, the nearest of them.
"""

import os
from typing import Any, NamedTuple

from hstl_fast.names import did_you_mean, one_of


class Variable(NamedTuple):
    """The description of one environment variable.

    Attributes:
        name: The name of the variable.
        meaning: A sentence on what it does.
        default: What holds where the variable is not set.
        allowed: The values that it takes, in words.
        choices: The values that it takes, where they can be listed.
        build_time: Whether setup.py reads it while the native code is built; otherwise hstl_fast reads it at run time.
    """

    name: str
    meaning: str
    default: str
    allowed: str
    choices: tuple[str, ...] = ()
    build_time: bool = False


def _choice_of(name: str, meaning: str, default: str, *choices: str, build_time: bool = False) -> Variable:
    return Variable(name, meaning, default, ", ".join(choices), choices, build_time)


_MIB = 1 << 20
_FLAG = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
_FLAG_WORDS = "1 or 0 (true or false, yes or no, on or off)"

BACKEND = _choice_of(
    "HSTL_FAST_BACKEND",
    "Selects the backend of every operator, unless `use_backend` or an argument `backend=` does.",
    "auto",
    *("auto", "reference", "cpu", "triton", "cuda"),
)
ALGORITHM = _choice_of(
    "HSTL_FAST_ALGORITHM",
    "Selects the algorithm of the native convolution, unless `use_algorithm` or an argument `algorithm=` does.",
    "auto",
    *("auto", "winograd", "direct"),
)
PACKED_CACHE = Variable(
    "HSTL_FAST_PACKED_CACHE",
    "Limits the memory of the prepacked weights that evaluation keeps from one call to the next; 0 keeps none.",
    "2048",
    "a whole number of MiB",
)
MEMORY_CACHE = Variable(
    "HSTL_FAST_MEMORY_CACHE",
    "Lets the caching allocator of the CPU keep freed blocks for the next call.",
    "1",
    _FLAG_WORDS,
)
TILES = Variable(
    "HSTL_FAST_TILES",
    "Names the file of Triton tiles to use, as `hstl-fast tune --output FILE` writes it.",
    "the file that `hstl-fast tune` writes in the user's cache folder",
    "the path of a file",
)
DEBUG = Variable(
    "HSTL_FAST_DEBUG",
    "Checks that feature maps are zero outside their support, runs the CPU without an execution plan, and makes the "
    "command line print tracebacks.",
    "0",
    _FLAG_WORDS,
)
CPU_ISA = _choice_of(
    "HSTL_FAST_CPU_ISA",
    "Selects the instruction set of the native CPU code; it is read once, when the binary is loaded.",
    "the best one that the processor has",
    *("avx512", "avx2", "neon", "plain"),
)
CPU = _choice_of(
    "HSTL_FAST_CPU",
    "Says whether to build the native CPU code: auto warns where that fails, 1 fails, 0 does not build it.",
    "auto",
    *("auto", "1", "0"),
    build_time=True,
)
CUDA = _choice_of(
    "HSTL_FAST_CUDA",
    "Says whether to build the native CUDA code: auto goes on where there is no nvcc or it fails, 1 fails, 0 does not "
    "build it.",
    "auto",
    *("auto", "1", "0"),
    build_time=True,
)
CUDA_ARCHS = Variable(
    "HSTL_FAST_CUDA_ARCHS",
    "Lists the GPUs that the native CUDA code is compiled for; PTX for newer ones is added.",
    "those of TORCH_CUDA_ARCH_LIST, else 80 90a",
    "compute capabilities of at least 8.0, such as 80 90a, or all",
    build_time=True,
)
SANITIZE = Variable(
    "HSTL_FAST_SANITIZE",
    "Builds the native code with sanitizers, for tests.",
    "none",
    "the argument of the compiler's -fsanitize, such as address,undefined",
    build_time=True,
)
CXX = Variable(
    "CXX",
    "Names the C++ compiler.",
    "the compiler that Python was built with, else c++, g++ or clang++",
    "a command",
    build_time=True,
)
NVCC = Variable(
    "NVCC",
    "Names the compiler of CUDA.",
    "nvcc in CUDA_HOME, else on the PATH, else in /usr/local/cuda/bin",
    "a command",
    build_time=True,
)
CUDA_HOME = Variable(
    "CUDA_HOME", "Names the CUDA toolkit to build with.", "none", "the path of a folder with bin/nvcc", build_time=True
)
TORCH_CUDA_ARCH_LIST = Variable(
    "TORCH_CUDA_ARCH_LIST",
    "Lists GPUs as for extensions of torch, where HSTL_FAST_CUDA_ARCHS lists none; those older than 8.0 are left out.",
    "none",
    "compute capabilities or generations, such as 8.0;9.0+PTX",
    build_time=True,
)
MAX_JOBS = Variable(
    "MAX_JOBS",
    "Limits how many files are compiled at the same time.",
    "as many as ninja chooses",
    "a whole number, 1 or more",
    build_time=True,
)
# The variables' names as `os.environ` keeps them.
_keys: dict[str, Any] = {}

VARIABLES = (
    *(BACKEND, ALGORITHM, PACKED_CACHE, MEMORY_CACHE, TILES, DEBUG, CPU_ISA),
    *(CPU, CUDA, CUDA_ARCHS, SANITIZE, CXX, NVCC, CUDA_HOME, TORCH_CUDA_ARCH_LIST, MAX_JOBS),
)


def backend() -> str:
    """Read the backend that HSTL_FAST_BACKEND selects."""
    return _choice(BACKEND) or BACKEND.default


def algorithm() -> str:
    """Read the algorithm that HSTL_FAST_ALGORITHM selects."""
    return _choice(ALGORITHM) or ALGORITHM.default


def packed_cache_bytes() -> int:
    """Read how many bytes of prepacked weights may be kept, from the MiB of HSTL_FAST_PACKED_CACHE."""
    text = _text(PACKED_CACHE) or PACKED_CACHE.default
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"{PACKED_CACHE.name} must be a number of MiB (0: nothing is kept), got {text!r}")
    return int(text) * _MIB


def memory_cache() -> bool:
    """Read whether HSTL_FAST_MEMORY_CACHE lets the allocator keep freed blocks."""
    return _flag(MEMORY_CACHE)


def tiles() -> str | None:
    """Read the path in HSTL_FAST_TILES; None where it names no file."""
    return os.environ.get(TILES.name) or None


def debug() -> bool:
    """Read whether HSTL_FAST_DEBUG asks for checks that cost time."""
    return _flag(DEBUG)


def cpu_isa() -> str | None:
    """Read the instruction set that HSTL_FAST_CPU_ISA selects; None for the best one.

    The name is checked only for being one of an instruction set: the binary knows which ones this processor has.
    """
    return _choice(CPU_ISA)


def faults() -> list[str]:
    """Read every variable of run time.

    Returns:
        A sentence for each variable whose value is not allowed.
    """
    found = []
    for read in (backend, algorithm, packed_cache_bytes, memory_cache, tiles, debug, cpu_isa):
        try:
            read()
        except ValueError as error:
            found.append(str(error))
    return found


def _text(variable: Variable) -> str:
    return os.environ.get(variable.name, "").strip() if _is_set(variable.name) else ""


def _is_set(name: str) -> bool:
    """Whether a variable may be set; `os.environ` raises and catches an exception for each that is not."""
    data = getattr(os.environ, "_data", None)  # a private name of Python; without it, all may be
    if data is None:
        return True
    key = _keys.get(name)
    if key is None:
        key = _keys[name] = os.environ.encodekey(name)
    return key in data


def _choice(variable: Variable) -> str | None:
    text = _text(variable)
    return one_of(text, variable.choices, variable.name) if text else None


def _flag(variable: Variable) -> bool:
    text = _text(variable) or variable.default
    value = _FLAG.get(text.lower())
    if value is None:
        raise ValueError(
            f"{variable.name} must be {variable.allowed}, got {text!r}{did_you_mean(text, ('true', 'false'))}"
        )
    return value
