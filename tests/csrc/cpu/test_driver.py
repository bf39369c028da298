"""The native operators without Python, where it would be in the way: for Arm in an emulator, and watched for races.

The program, tests/csrc/cpu/driver.cpp, compares every function of csrc/cpu/operators.h with loops; .ci/sanitize runs it
as well.
"""

import shutil
from pathlib import Path

import pytest

from tests.csrc.cpu.build import HERE, build_driver, run

pytestmark = pytest.mark.slow


def program(*names: str) -> str:
    """The path of the first of these programs that is there; skips the test where none is."""
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f"needs {' or '.join(names)}")
    return found


def test_arm(tmp_path: Path) -> None:
    compiler = program("aarch64-linux-gnu-g++")
    emulator = program("qemu-aarch64", "qemu-aarch64-static")
    driver = build_driver(tmp_path, compiler, "neon", ["-static"], ["-fopenmp"])
    assert "neon float32 arme winograd 4 gw" in run([emulator, str(driver)], tmp_path)


def test_threads_share_nothing_that_one_of_them_writes(tmp_path: Path) -> None:
    flags = ["-fsanitize=thread", "-O1", "-g1"]
    # The driver's own loops, with one thread, would take most of the time if they were watched, too.
    own = ["-fno-sanitize=thread", "-O2"]
    driver = build_driver(tmp_path, program("g++"), "plain", flags, ["-pthread", str(HERE / "team.cpp")], own)
    assert "plain float32 arme winograd 4 gw" in run([str(driver)], tmp_path)
