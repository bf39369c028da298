"""Execution plans that are kept for the next call of the same lengths with the same network."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from torch import Tensor

from hstl_fast._caches import register_cache
from hstl_fast.models.cpu_plan import Plan, PlannedMaps
from hstl_fast.models.eligibility import Network
from hstl_fast.models.head import apply_head
from hstl_fast.models.plan_state import Asked, PlanState, may_plan, snapshot, state_for_plan

# Plans of at most so many states are kept; one takes 10 to 20 KB.
MOST_PLANS = 128

# Plans by state, the least recently used first. Every access is one step of the interpreter, so threads need no lock,
# and a fork cannot copy a locked one.
_plans: dict[Hashable, Plan] = {}

register_cache("execution plans", lambda: sum(plan.program.nbytes for plan in list(_plans.values())), _plans.clear)


def planned_embeddings(asked: Asked, walk: Callable[[Any, PlannedMaps], None]) -> Tensor | None:
    """Compute embeddings by an execution plan, which is kept or made.

    Args:
        asked: What is computed.
        walk: Plans every layer of a network, given that network.

    Returns:
        The embeddings `[n, p, c]`; None if no plan may stand for the layers.
    """

    def make(network: Network, with_head: bool) -> PlannedMaps:
        (n, t, _, _), dtype = asked.silhouettes.shape, network.parts.weight.dtype
        shape = tuple(asked.silhouettes.shape)
        maps = PlannedMaps(shape, asked.silhouettes.dtype, dtype, asked.lengths or [t] * n, with_head)
        walk(network, maps)
        return maps

    found = answer_by_plan(asked, make)
    if found is None:
        return None
    plan, answer = found
    if plan.with_head:
        return answer
    return apply_head(asked.network, [answer.transpose(1, 2)], asked.batch_statistics)


def answer_by_plan(asked: Asked, make: Callable[[Network, bool], PlannedMaps]) -> tuple[Plan, Tensor] | None:
    """Run an execution plan, which is kept or made.

    A plan is made from a snapshot of the network, and kept by the snapshot's state: another thread may change options
    of the network while the plan is made, and change them back.

    Args:
        asked: What is computed.
        make: Plans the layers of a network; it is told whether the head is to be planned.

    Returns:
        The plan and its answer; None if no plan may stand for the layers.
    """
    state = state_for_plan(asked)
    if state is None:
        return None
    plan = None if state.key is None else _plans.pop(state.key, None)
    if plan is not None:
        _plans[state.key] = plan
        return plan, plan.run(asked.silhouettes, state.weights)
    if not may_plan(asked.network):
        return None
    network = snapshot(asked.network)
    planned = state_for_plan(asked._replace(network=network))
    if planned is None:
        return None
    maps = make(network, planned.with_head)
    plan = maps.plan(network)
    if not maps.has_copies:
        _keep(plan, planned, asked)
    # Prepacked weights are kept with the network's own tensors, which may have other shapes than the snapshot's.
    fit = [x.shape for x in state.weights] == [x.shape for x in maps.weights]
    return plan, plan.run(asked.silhouettes, state.weights if fit else maps.weights)


def _keep(plan: Plan, state: PlanState, asked: Asked) -> None:
    """Keep a plan, unless the network has another state by now, as another thread may give it."""
    after = state_for_plan(asked)
    if state.key is None or after is None or after.key != state.key:
        return
    _plans[state.key] = plan
    while len(_plans) > MOST_PLANS:
        _plans.pop(next(iter(_plans)), None)
