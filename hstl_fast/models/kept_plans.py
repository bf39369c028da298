"""Execution plans that are kept for the next call of the same lengths with the same network."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from torch import Tensor

from hstl_fast._caches import register_cache
from hstl_fast.models.cpu_plan import Plan, PlannedMaps
from hstl_fast.models.eligibility import Network
from hstl_fast.models.head import apply_head
from hstl_fast.models.plan_state import PlanState, may_plan, state_for_plan

# Plans of at most so many states are kept; one takes 10 to 20 KB.
MOST_PLANS = 128

# Plans by state, the least recently used first. Every access is one step of the interpreter, so threads need no lock,
# and a fork cannot copy a locked one.
_plans: dict[Hashable, Plan] = {}

register_cache("execution plans", lambda: sum(plan.program.nbytes for plan in list(_plans.values())), _plans.clear)


def planned_embeddings(
    network: Network,
    silhouettes: Tensor,
    lengths: list[int],
    batch_statistics: bool,
    walk: Callable[[PlannedMaps], None],
) -> Tensor | None:
    """Compute embeddings by an execution plan, which is kept or made.

    Args:
        network: An `HSTL`.
        silhouettes: `[n, t, h, w]`, uint8 0..255 or floating 0..1.
        lengths: Of packed sequences, else empty.
        batch_statistics: Whether the norm takes the statistics of the batch.
        walk: Plans every layer of the network.

    Returns:
        The embeddings `[n, p, c]`; None if no plan may stand for the layers.
    """
    state = state_for_plan(network, silhouettes, lengths, batch_statistics)
    if state is None:
        return None
    plan = None if state.key is None else _plans.pop(state.key, None)
    if plan is not None:
        _plans[state.key] = plan
        answer = plan.run(silhouettes, state.weights)
    elif not may_plan(network):
        return None
    else:
        answer = _made(network, silhouettes, lengths, batch_statistics, state, walk)
    return answer if state.with_head else apply_head(network, [answer.transpose(1, 2)], batch_statistics)


def _made(
    network: Network,
    silhouettes: Tensor,
    lengths: list[int],
    batch_statistics: bool,
    state: PlanState,
    walk: Callable[[PlannedMaps], None],
) -> Tensor:
    """Plan the network, keep the plan, and run it."""
    n, t, _, _ = silhouettes.shape
    dtype = network.parts.weight.dtype
    maps = PlannedMaps(tuple(silhouettes.shape), silhouettes.dtype, dtype, lengths or [t] * n, state.with_head)
    walk(maps)
    plan = maps.plan(network)
    if state.key is not None and not maps.has_copies:
        after = state_for_plan(network, silhouettes, lengths, batch_statistics)
        if after is not None and after.key == state.key:  # another thread may have changed the network meanwhile
            _plans[state.key] = plan
            while len(_plans) > MOST_PLANS:
                _plans.pop(next(iter(_plans)), None)
    return plan.run(silhouettes, maps.weights)
