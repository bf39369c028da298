"""`python -m benchmarks.gpu.stand_ins PROGRAM ...`: what stands in for programs of the CUDA toolkit in a rehearsal.

Each speaks as the real one does, so that what reads it is tried without a GPU. Its figures mean nothing.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence


def micro(arguments: Sequence[str]) -> int:
    """`run NAME...` prints a line for each case."""
    from benchmarks.gpu.micro import cases

    for name in arguments[1:]:
        row = {"name": name, **{k: v for k, v in cases()[name].items() if k != "name"}}
        figures = {"rate": row["predicted"] / 2, "fastest": row["predicted"], "seconds": 1e-3, "clock_hz": 1e9}
        print(json.dumps({**row, **figures, "status": "ok"}), flush=True)
    return 0


def compute_sanitizer(arguments: Sequence[str]) -> int:
    """Runs the program that comes after its own options, and reports no error."""
    print("========= COMPUTE-SANITIZER")
    code = subprocess.run(_target(arguments), check=False).returncode
    print("========= ERROR SUMMARY: 0 errors")
    return code


def ncu(arguments: Sequence[str]) -> int:
    """Runs the program that comes after its own options, and lists one kernel."""
    if "--query-metrics" in arguments:
        print("gpu__time_duration   counter   nanoseconds")
        return 0
    code = subprocess.run(_target(arguments), check=False, stdout=subprocess.DEVNULL).returncode
    names = arguments[arguments.index("--metrics") + 1].split(",")
    print("==PROF== Disconnected")
    for line in (
        ["ID", "Kernel Name", *names],
        ["", "", *("" for _ in names)],
        ["0", "stand-in", *("1" for _ in names)],
    ):
        print(",".join(f'"{word}"' for word in line))
    return code


def _target(arguments: Sequence[str]) -> Sequence[str]:
    return arguments[arguments.index(sys.executable) :]


PROGRAMS: dict[str, Callable[[Sequence[str]], int]] = {
    "micro": micro,
    "compute-sanitizer": compute_sanitizer,
    "ncu": ncu,
}

if __name__ == "__main__":
    sys.exit(PROGRAMS[sys.argv[1]](sys.argv[2:]))
