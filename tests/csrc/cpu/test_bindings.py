"""The native module's bindings: arguments, their names and types, instruction sets, and the build's description."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# A call is known once the page that defines it is imported.
from hstl_fast.backends.cpu import calls, head, operators  # noqa: F401
from tests.csrc.cpu.helpers import cpu

# The arguments that are lists.
LISTS = ("seq_lens", "split", "addresses", "sizes")


class Wrong:
    """An argument that is no number, no sequence, and neither true nor false."""

    def __bool__(self) -> bool:
        raise TypeError("neither true nor false")


@pytest.mark.parametrize("function", cpu.fields)
def test_arguments_are_counted_and_named(function: str) -> None:
    names = cpu.fields[function]
    arguments = [[1] if name in LISTS else 4 for name in names]
    call = getattr(cpu, function)
    for given in ([], arguments[:-1], [*arguments, 1]):
        expected = f"{function}: expected {len(names)} arguments ({', '.join(names)}), got {len(given)}"
        with pytest.raises(TypeError, match=re.escape(expected)):
            call(*given)
    for i, name in enumerate(names):
        with pytest.raises(TypeError, match=rf"^{function}: {name}: "):
            call(*arguments[:i], Wrong(), *arguments[i + 1 :])


def every_call(kind: type = calls.NativeCall) -> Iterator[type]:
    """Every subclass that names a native function."""
    for each in kind.__subclasses__():
        yield from every_call(each)
        if "name" in vars(each):
            yield each


def test_every_call_has_the_fields_of_its_function() -> None:
    assert {"arme_forward", "astp_forward", "fta_forward", "max_pool", "grow_support"} <= {c.name for c in every_call()}
    for each in every_call():
        assert calls.argument_names(each) == cpu.fields[each.name], each


def test_unknown_types_are_refused() -> None:
    with pytest.raises(ValueError, match=r"itemsize: expected 4 \(float32\) or 8 \(float64\), got 2"):
        cpu.astp_workspace(1, [1], 1, 1, 1, 2, 1)


def test_instruction_sets_are_named_and_unknown_ones_refused() -> None:
    names = cpu.instruction_sets()
    assert names
    assert cpu.instruction_set() in names
    with pytest.raises(ValueError, match=rf"{names[0]}.*got 'sse9'"):
        cpu.use_instruction_set("sse9")


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        (cpu.instruction_sets()[-1], None),
        pytest.param("  ", cpu.instruction_sets()[0], marks=pytest.mark.slow),
        ("sse9", "got 'sse9'"),
    ],
)
def test_instruction_set_by_environment(name: str, printed: str | None) -> None:
    code = "from hstl_fast.backends.cpu import library as n; print(n.cpu_error() or n.cpu().instruction_set())"
    environment = {**os.environ, "HSTL_FAST_CPU_ISA": name}
    root = Path(__file__).parents[3]
    output = subprocess.check_output([sys.executable, "-c", code], env=environment, cwd=root, text=True)
    assert (printed or name) in output
    assert output.count("\n") == 1


def test_build_is_described() -> None:
    info: dict[str, Any] = cpu.build_info()
    assert set(info) == {"compiler", "flags", "version"}
    assert isinstance(cpu.openmp(), bool)
