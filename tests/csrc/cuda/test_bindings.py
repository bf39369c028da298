"""The bindings of hstl_fast._cuda: arguments, their names and types, and the calls that pass them."""

import re
from collections.abc import Iterator
from types import ModuleType

import pytest

from hstl_fast.backends import calls as native
from hstl_fast.backends.cuda import calls, library, operators  # noqa: F401  a call is known once its page is imported


class Wrong:
    """An argument that is no number, no sequence, and neither true nor false."""

    def __bool__(self) -> bool:
        raise TypeError("neither true nor false")


def test_arguments_are_counted_and_named(emulated: ModuleType) -> None:
    assert len(emulated.fields) == 13
    for function, names in emulated.fields.items():
        arguments = [[1] if name == "split" else 4 for name in names]
        call = getattr(emulated, function)
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


def test_every_function_has_a_call_with_its_fields(emulated: ModuleType) -> None:
    found = {each.name: native.argument_names(each) for each in every_call()}
    assert found == emulated.fields


def test_a_call_with_other_fields_is_refused(emulated: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from hstl_fast.backends.cuda.elementwise import LeakyBackwardCall

    other = ModuleType("other")
    vars(other)["fields"] = {**emulated.fields, "leaky_backward": ("grad", "size")}
    monkeypatch.setattr(library, "_cuda", other)
    native._values_of.cache_clear()
    with pytest.raises(RuntimeError, match=r"leaky_backward: the native function expects \('grad', 'size'\)"):
        LeakyBackwardCall(None, None, 0, 0.1, 0, 0, 0).arguments()
    native._values_of.cache_clear()


def test_the_build_is_described(emulated: ModuleType) -> None:
    assert set(emulated.build_info()) == {"compiler", "nvcc", "flags", "version"}
    assert emulated.interface == library.INTERFACE
    assert emulated.architectures == ()
    assert isinstance(emulated.driver_version(), int)
    assert isinstance(emulated.runtime_version, int)
