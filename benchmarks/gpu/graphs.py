"""Stage graphs: embedding by CUDA graphs beside the same network layer by layer, on every backend with kernels."""

import functools
from statistics import median

import torch
from torch import Tensor

from benchmarks.core import interleaving
from benchmarks.core.correctness import Answer, errors
from benchmarks.gpu import clips, implementations, timing
from benchmarks.gpu.guarded import guarded
from benchmarks.gpu.numerics import Numerics
from benchmarks.gpu.supervise import Job, Reporter, Row
from benchmarks.gpu.workloads import OUTPUT_BOUNDS
from hstl_fast import HSTL, use_backend
from hstl_fast.models import cuda_graphs

STAGE = "graphs"
LONGEST = 120.0
ROUNDS, TINY_ROUNDS = 30, 2
NUMERICS = Numerics(torch.bfloat16, autocast=True)
# The lengths of the clips of a batch: one clip, a few of one length, and some that fill no graph's size.
BATCHES = {"one clip": (30,), "8 clips": (30,) * 8, "clips of three lengths": (12, 30, 57)}


def jobs(device: torch.device, tiny: bool) -> list[Job]:
    """A job for each batch, with all backends."""
    names = implementations.with_kernels(device)
    return [Job(STAGE, batch, tuple(f"{batch} | hstl_fast {name}" for name in names), LONGEST) for batch in BATCHES]


def execute(job: Job, reporter: Reporter, device: torch.device, tiny: bool) -> None:
    """Compare and time both ways on each backend."""
    for key in job.keys:
        reporter.started(key)
        backend = key.removeprefix(f"{job.name} | hstl_fast ")
        lengths = BATCHES[job.name] if not tiny else tuple(length // 3 for length in BATCHES[job.name])
        measure = functools.partial(measured, backend, lengths, device, tiny)
        reporter.finished(key, guarded(measure, device, reporter, key))


def measured(backend: str, lengths: tuple[int, ...], device: torch.device, tiny: bool) -> Row:
    """Whether both ways give the same, and their times."""
    model = clips.model("casia-b", tiny).to(device).eval()
    given = [clip.to(device) for clip in clips.ragged(lengths)]

    def by_layers() -> Tensor:
        packed = torch.cat(given)[None]
        with torch.no_grad():
            embeddings: Tensor = model(packed, seq_lens=list(lengths)).embeddings
        return embeddings

    with NUMERICS.on(device), use_backend(backend):
        expected = by_layers()
        got = model.embed(given)
        row: Row = {"identical": bool(torch.equal(got, expected)), "graphs": captured(model)}
        row["error"] = errors(Answer([got]), Answer([expected.double()])).output
        bound = OUTPUT_BOUNDS[NUMERICS.precision]
        if not row["error"] <= bound:
            return {**row, "status": "wrong", "reason": f"output is off by {row['error']:.1e}, {bound} allowed"}
        if row["graphs"] == 0:
            return {**row, "status": "unavailable", "reason": "embed captured no graph"}
        calls = {"layers": by_layers, "graph": lambda: model.embed(given)}
        walls = {name: functools.partial(timing.wall_seconds, call, device) for name, call in calls.items()}
        found = interleaving.interleaved(walls, TINY_ROUNDS if tiny else ROUNDS)
    summaries = {name: interleaving.summarise(seconds)._asdict() for name, seconds in found.items()}
    return {**row, **summaries, "speedup": median(found["layers"]) / median(found["graph"]), "status": "ok"}


def captured(model: HSTL) -> int:
    """The number of graphs that a model keeps."""
    return len(cuda_graphs.graphs_of(model)._graphs)
