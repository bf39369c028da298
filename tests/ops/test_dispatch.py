"""Who computes: argument over context over environment over the automatic choice, and what is said about it."""

import contextlib
import logging
import re
import sys
import threading
import types

import pytest
import torch

from hstl_fast import HSTL, backends, environment, functional, info, use_backend
from hstl_fast.backends import measured
from hstl_fast.backends.cpu import library
from hstl_fast.models import eligibility
from hstl_fast.ops import _dispatch

X = torch.rand(1, 2, 3, 4, 5)
W = torch.rand(1, 2, 2, 3, 3, 3)


def chosen(backend: str | None = None) -> str:
    return _dispatch.choose("arme", "cpu", torch.float32, backend)


def test_the_variable_takes_the_names_of_all_backends() -> None:
    assert environment.BACKEND.choices == _dispatch.BACKENDS


def test_auto_prefers_the_native_backend(native: str) -> None:
    assert chosen() == "cpu"


def test_argument_context_environment(native: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HSTL_FAST_BACKEND", "reference")
    assert chosen() == "reference"
    with use_backend("cpu"):
        assert chosen() == "cpu"
        assert chosen("reference") == "reference"
        with use_backend("auto"):
            assert chosen() == "cpu"
    assert chosen() == "reference"


def test_context_ends_with_an_exception() -> None:
    with contextlib.suppress(KeyError), use_backend("reference"):
        raise KeyError
    assert _dispatch.BACKEND.value() == "auto"


def test_context_belongs_to_its_thread() -> None:
    seen = []
    with use_backend("reference"):
        thread = threading.Thread(target=lambda: seen.append(_dispatch.BACKEND.value()))
        thread.start()
        thread.join()
    assert seen == ["auto"]


@pytest.fixture
def partial(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """A backend in front of all others that computes ARME on the CPU and nothing else."""

    def why_not(operator: str, device: torch.device, dtype: torch.dtype) -> str | None:
        return None if (operator, device.type) == ("arme", "cpu") else f"the cuda backend does not compute {operator}"

    package = types.SimpleNamespace(why_not=why_not)
    found = backends.package
    monkeypatch.setattr(backends, "package", lambda name: package if name == "cuda" else found(name))
    monkeypatch.setattr(_dispatch, "candidates", lambda *arguments: ("cuda", "cpu", "reference"))
    return package


def test_auto_falls_back_operator_by_operator(native: str, partial: types.SimpleNamespace) -> None:
    automatic = {operator: _dispatch.choose(operator, "cpu", torch.float32, None) for operator in _dispatch.OPERATORS}
    assert automatic == {"arme": "cuda", "astp": "cpu", "fta": "cpu"}
    with pytest.raises(RuntimeError, match="backend 'cuda' cannot run astp: the cuda backend does not compute astp"):
        functional.astp(X, None, torch.tensor([6.5]), [4], backend="cuda")


def test_a_network_takes_a_backend_that_computes_everything(native: str, partial: types.SimpleNamespace) -> None:
    model = HSTL.from_preset("casia-b").eval()
    assert eligibility.backend_with_support(model) == "reference"
    partial.why_not = lambda operator, device, dtype: None
    assert eligibility.backend_with_support(model) == "cuda"


def without_fta(operator: str, device: torch.device, dtype: torch.dtype) -> str | None:
    return None if operator in ("arme", "astp") else f"the cuda backend does not compute {operator}"


def test_others_compute_what_a_backend_in_force_has_no_kernels_for(
    partial: types.SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial.why_not = without_fta
    x, weights, biases = torch.rand(1, 2, 3, 4, 5), torch.rand(1, 2, 2, 2), torch.rand(1, 2, 2)
    expected = functional.fta(x, weights, biases, [4], backend="reference")
    with use_backend("cuda"):
        assert _dispatch.choose("arme", "cpu", torch.float32, None) == "cuda"
        monkeypatch.setattr(backends, "STAND_INS", {("cuda", "fta"): ("triton", "reference")})
        assert torch.equal(functional.fta(x, weights, biases, [4]), expected)
        monkeypatch.setattr(backends, "STAND_INS", {("cuda", "fta"): ("cpu", "reference")})
        stands_in, automatic = (_dispatch.choose("fta", "cpu", torch.float32, name) for name in (None, "auto"))
        assert stands_in == automatic
    with pytest.raises(RuntimeError, match="backend 'cuda' cannot run fta: the cuda backend does not compute fta"):
        functional.fta(x, weights, biases, [4], backend="cuda")


def test_nobody_stands_in_for_a_backend_that_cannot_run() -> None:
    with use_backend("cuda"), pytest.raises(RuntimeError, match="backend 'cuda' cannot run fta: the cuda backend comp"):
        _dispatch.choose("fta", "cpu", torch.float32, None)


def test_a_network_may_leave_fta_to_others(native: str, partial: types.SimpleNamespace) -> None:
    partial.why_not = without_fta
    model = HSTL.from_preset("casia-b").eval()
    with use_backend("cuda"):
        assert eligibility.backend_with_support(model) == "cuda"
        assert set(eligibility.backends_of_layers(model)) == {"cuda", "reference"}


@pytest.fixture
def hopper(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, float]]:
    """The table of measurements, which is empty, and a GPU of compute capability 9.0 that every backend computes on."""
    table: dict[str, dict[str, float]] = {}
    monkeypatch.setattr(measured, "read", lambda: table)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    monkeypatch.setattr(backends, "why_not", lambda *arguments: None)
    monkeypatch.setattr(backends, "wrong_setting", lambda backend: None)
    return table


def automatic(operator: str, *widths: int, dtype: torch.dtype = torch.bfloat16) -> str:
    return _dispatch.choose(operator, "cuda", dtype, None, widths=widths)


def test_kernels_that_were_not_measured_are_not_chosen(hopper: dict[str, dict[str, float]]) -> None:
    assert _dispatch.candidates("arme", "cuda", torch.bfloat16) == ("reference", "cuda", "triton")
    assert automatic("arme", 64, 128) == "reference"


def test_what_was_measured_to_be_the_fastest_is_chosen(hopper: dict[str, dict[str, float]]) -> None:
    hopper["sm_90 | arme | bfloat16 | 64-128"] = {"reference": 3.0, "triton": 2.0, "cuda": 1.0}
    hopper["sm_90 | arme | bfloat16 | 128-128"] = {"reference": 9.0, "triton": 1.0, "cuda": 4.0}
    hopper["sm_90 | fta | bfloat16 | 64"] = {"reference": 1.0, "triton": 2.0}
    assert automatic("arme", 64, 128) == automatic("arme", 40, 100) == "cuda"
    assert automatic("arme", 128, 128) == "triton"
    assert automatic("arme", 256, 256) == "reference"
    assert automatic("arme", 64, 128, dtype=torch.float16) == "reference"
    assert automatic("fta", 64) == "reference"
    # All layers together, as a network asks: 3 seconds by Triton, 5 by CUDA C++.
    assert automatic("arme") == _dispatch.choose_for_network("cuda", torch.bfloat16) == "triton"
    assert _dispatch.choose("arme", "cuda", torch.bfloat16, "cuda", widths=(128, 128)) == "cuda"


def test_a_backend_that_cannot_run_gives_way_to_the_next_fastest(
    hopper: dict[str, dict[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    hopper["sm_90 | arme | bfloat16 | 64-128"] = {"reference": 3.0, "triton": 2.0, "cuda": 1.0}
    monkeypatch.setattr(backends, "why_not", lambda backend, *_: "not built" if backend == "cuda" else None)
    assert automatic("arme", 64, 128) == "triton"


def test_measurements_count_for_one_generation(
    hopper: dict[str, dict[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    hopper["sm_90 | arme | bfloat16 | 64-128"] = {"reference": 3.0, "cuda": 1.0}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (8, 0))
    assert automatic("arme", 64, 128) == "reference"


def test_the_table_in_the_package_holds_measurements_of_known_backends() -> None:
    for key, row in measured.read().items():
        assert re.fullmatch(r"(sm_\d+|gfx\w+) \| (arme|astp|fta) \| (b?float16|float32) \| \d+(-\d+)?", key)
        assert {"reference"} < set(row) <= {"reference", *backends.ON_GPUS}
        assert all(seconds > 0 for seconds in row.values())


@pytest.mark.parametrize("backend", backends.NATIVE)
def test_no_backend_computes_an_unknown_operator(backend: str) -> None:
    assert backends.why_not(backend, "pool", "cpu", torch.float32) is not None


def test_unknown_names(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="got 'refrence'; did you mean 'reference'"), use_backend("refrence"):
        pass
    monkeypatch.setenv("HSTL_FAST_BACKEND", "xyz")
    with pytest.raises(ValueError, match=r"HSTL_FAST_BACKEND must be one of auto, reference, cpu.* got 'xyz'"):
        functional.arme(X, W, [4])


def test_without_the_binary(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(library, "cpu", lambda: None)
    monkeypatch.setattr(library, "cpu_error", lambda: "no such file")
    monkeypatch.setattr(_dispatch, "_logged", set())
    with caplog.at_level(logging.WARNING, logger="hstl_fast"):
        automatic = functional.arme(X, W, [4])
        functional.arme(X, W, [4])
    assert [record.message for record in caplog.records] == [
        "arme on cpu runs on the backend 'reference' (cpu: no such file)"
    ]
    assert torch.equal(automatic, functional.arme(X, W, [4], backend="reference"))
    with pytest.raises(RuntimeError, match="backend 'cpu' cannot run arme: no such file"):
        functional.arme(X, W, [4], backend="cpu")
    rows = [row for row in info.collect()["backends"] if (row["operator"], row["backend"]) == ("arme", "cpu")]
    assert rows[0]["reason"] == "no such file"
    assert not rows[0]["available"]


@pytest.mark.parametrize("backend", [None, "cpu"])
def test_a_wrong_instruction_set_is_a_wrong_value(backend: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    message = "HSTL_FAST_CPU_ISA must be one of avx512, avx2, neon, plain, got 'zzz'"
    monkeypatch.setattr(library, "_cpu", None)
    monkeypatch.setattr(library, "_cpu_error", message)
    with pytest.raises(ValueError, match=r"^HSTL_FAST_CPU_ISA must be one of"):
        functional.arme(X, W, [4], backend=backend)
    with pytest.raises(ValueError, match=r"^HSTL_FAST_CPU_ISA must be one of"):
        library.require_cpu()
    assert functional.arme(X, W, [4], backend="reference").shape == (1, 2, 3, 4, 5)


def test_errors_name_the_function_that_was_called() -> None:
    with pytest.raises(RuntimeError, match=r"^backend 'cuda' cannot run astp: "):
        functional.astp(X, None, torch.tensor([6.5]), [4], backend="cuda")
    with pytest.raises(RuntimeError, match=r"^backend 'cuda' cannot run strip_pool: "):
        functional.strip_pool(X, torch.tensor([6.5]), 2, backend="cuda")


def test_a_type_that_nothing_computes_is_an_error() -> None:
    with pytest.raises(RuntimeError, match=r"no backend can run arme: cpu: arme computes float16.* not torch\.int64"):
        _dispatch.choose("arme", "cpu", torch.int64, None)


def test_every_backend_has_a_row_and_one_is_automatic() -> None:
    rows = [row for row in info.collect()["backends"] if row["device"] == "cpu"]
    assert {(row["operator"], row["backend"]) for row in rows} == {
        (operator, backend) for operator in _dispatch.OPERATORS for backend in _dispatch.BACKENDS[1:]
    }
    assert [row["operator"] for row in rows if row["automatic"]] == list(_dispatch.OPERATORS)
    assert all((row["reason"] is None) == row["available"] for row in rows)


def test_the_check_covers_every_available_backend(native: str) -> None:
    results = info.check()
    assert {result.backend for result in results} >= {"reference", "cpu"}
    assert all(result.passed for result in results)


def test_the_check_notices_a_wrong_backend(native: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = functional.arme
    monkeypatch.setattr(functional, "arme", lambda *a, **k: right(*a, **k) * 1.001)
    failed = {result.operator for result in info.check() if not result.passed}
    assert "arme, forward" in failed
    assert not any(name.startswith(("astp", "fta")) for name in failed)


@pytest.mark.parametrize("attributes", [{}, {"interface": library.INTERFACE + 1}])
def test_a_binary_of_other_sources_is_not_used(attributes: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hstl_fast._cpu", types.SimpleNamespace(**attributes))
    binary, reason = library._load("hstl_fast._cpu")
    assert binary is None
    assert "was built from other sources" in reason
