"""Stage check: is every answer right? Nothing stops it; a row says what went wrong."""

import functools
import warnings

import torch

from benchmarks.core.correctness import Bounds, Errors
from benchmarks.gpu import check_endurance, check_networks, check_operators
from benchmarks.gpu.check_networks import Seed
from benchmarks.gpu.check_operators import Operands
from benchmarks.gpu.guarded import attempt
from benchmarks.gpu.numerics import Numerics, double
from benchmarks.gpu.supervise import Job, Row, Say
from benchmarks.gpu.workloads import NETWORK_GRADIENT_BOUNDS, OUTPUT_BOUNDS
from hstl_fast import functional, reference

SEEDS = 5
TIMES_TORCH = 2.0
"""Times plain torch's own error in the same arithmetic: the most that a backend may be off."""
OUTPUT_FLOOR = {"float32": 5e-7, "tf32": 1e-3, "float16": 1e-3, "bfloat16": 8e-3}
GRADIENT_FLOOR = {"float32": 2e-6, "tf32": 2e-3, "float16": 2e-3, "bfloat16": 1.6e-2}
"""Allowed even where torch happens to be nearer: a few roundings in float32, one or two in narrower types."""
SYNCHRONISATION = "synchronisation"


def jobs(device: torch.device, tiny: bool) -> list[Job]:
    """Every operator, then every network, then many steps of each, then (on a GPU) who waits for the device."""
    found = []
    for operator_case in check_operators.cases(tiny):
        rows = tuple(key for key, _, _ in check_operators.keys(operator_case, device))
        found.append(Job("check", operator_case.name, rows, 60))
    for network_case in check_networks.cases(tiny):
        rows = tuple(key for key, _, _ in check_networks.keys(network_case, device))
        found.append(Job("check", network_case.name, rows, 120))
    for endurance_case in check_endurance.CASES:
        rows = tuple(key for key, _ in check_endurance.keys(endurance_case, device))
        found.append(Job("check", endurance_case.name, rows, 120))
    if device.type != "cuda":
        return found
    waiting = tuple(
        f"{SYNCHRONISATION} | {case.name} | {backend}"
        for case in check_operators.cases(tiny=True)
        for backend in check_operators.backends(case, device, torch.float32)
    )
    return [*found, Job("check", SYNCHRONISATION, waiting, 60)]


def execute(job: Job, say: Say, device: torch.device, tiny: bool) -> None:
    """The rows of a job."""
    if job.name == SYNCHRONISATION:
        _synchronisation(job, say, device)
        return
    endurance_case = next((case for case in check_endurance.CASES if case.name == job.name), None)
    if endurance_case is not None:
        _endurance(endurance_case, job, say, device, tiny)
        return
    operator_case = next((case for case in check_operators.cases(tiny) if case.name == job.name), None)
    if operator_case is not None:
        _operator(operator_case, job, say, device)
    else:
        network_case = next(case for case in check_networks.cases(tiny) if case.name == job.name)
        _network(network_case, job, say, device, tiny)


def verdict(found: Errors, torchs: Errors, precision: str, bounds: Bounds) -> Row:
    """Whether `found` is within the rule; where torch's own answer is wrong, `bounds` take its place."""
    output = _allowed(torchs.output, OUTPUT_FLOOR[precision], bounds.output)
    gradient = None
    if torchs.gradient is not None and bounds.gradient is not None:
        gradient = _allowed(torchs.gradient, GRADIENT_FLOOR[precision], bounds.gradient)
    allowed = Bounds(output, gradient)
    row: Row = {
        "errors": found._asdict(),
        "errors_of_torch": torchs._asdict(),
        "allowed": allowed._asdict(),
        "torch_is_wrong": torchs.fault(bounds),
    }
    fault = found.fault(allowed)
    return {**row, "status": "pass"} if fault is None else {**row, "status": "fail", "reason": fault}


def _allowed(torchs: float, floor: float, bound: float) -> float:
    return max(TIMES_TORCH * torchs, floor) if torchs <= bound else bound


def _operator(case: check_operators.Case, job: Job, say: Say, device: torch.device) -> None:
    given = check_operators.operands(case, device)
    with double().on(given.x.device):
        expected = check_operators.truth(case, given)
    torchs: dict[Numerics, Errors] = {}

    def row(mode: Numerics, backend: str) -> Row:
        own = _in_mode(given, mode, device)
        with mode.on(device):
            if mode not in torchs:
                plain = check_operators.answer(reference, case, own, {})
                torchs[mode] = check_operators.distances(plain, expected)
            got = check_operators.answer(functional, case, own, {"backend": backend})
        bound = OUTPUT_BOUNDS[mode.precision]
        return verdict(check_operators.distances(got, expected), torchs[mode], mode.precision, Bounds(bound, 2 * bound))

    for key, mode, backend in check_operators.keys(case, device):
        if key in job.keys:
            say.doing(key)
            say.row(key, attempt(functools.partial(row, mode, backend), device, say, key))


def _in_mode(given: Operands, mode: Numerics, device: torch.device) -> Operands:
    """Under autocast the caller's tensors are float32."""
    return check_operators.on(given, torch.float32 if mode.autocast else mode.dtype, mode.parameters, device)


def _network(case: check_networks.Case, job: Job, say: Say, device: torch.device, tiny: bool) -> None:
    seeds = [Seed(case, seed, device, tiny) for seed in range(1 if tiny else SEEDS)]

    def row(mode: Numerics, backend: str) -> Row:
        torchs = check_networks.medians([seed.torch_errors(mode) for seed in seeds])
        found = check_networks.medians([seed.errors(mode, backend) for seed in seeds])
        training = found.gradient is not None
        bounds = Bounds(OUTPUT_BOUNDS[mode.precision], NETWORK_GRADIENT_BOUNDS[mode.precision] if training else None)
        return verdict(found, torchs, mode.precision, bounds)

    for key, mode, backend in check_networks.keys(case, device):
        if key in job.keys:
            say.doing(key)
            say.row(key, attempt(functools.partial(row, mode, backend), device, say, key))


def _endurance(case: check_endurance.Case, job: Job, say: Say, device: torch.device, tiny: bool) -> None:
    for key, backend in check_endurance.keys(case, device):
        if key in job.keys:
            say.doing(key)
            row = functools.partial(check_endurance.measure, case, backend, device, tiny)
            say.row(key, attempt(row, device, say, key))


def _synchronisation(job: Job, say: Say, device: torch.device) -> None:
    """Observations: how often an operator, forward and backward, makes its caller wait for the device."""
    for case in check_operators.cases(tiny=True):
        for backend in check_operators.backends(case, device, torch.float32):
            key = f"{SYNCHRONISATION} | {case.name} | {backend}"
            if key in job.keys:
                say.doing(key)
                say.row(key, attempt(functools.partial(_waits, case, backend, device), device, say, key))


def _waits(case: check_operators.Case, backend: str, device: torch.device) -> Row:
    given = _in_mode(check_operators.operands(case, device), Numerics(torch.float32), device)
    check_operators.answer(functional, case, given, {"backend": backend})
    torch.cuda.synchronize(device)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            check_operators.answer(functional, case, given, {"backend": backend})
        finally:
            torch.cuda.set_sync_debug_mode("default")
    count = sum("synchroniz" in str(warning.message).lower() for warning in caught)
    return {"status": "noted", "synchronisations": count}
