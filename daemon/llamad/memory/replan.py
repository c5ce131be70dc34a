"""Another budget for a model that is loaded: its engine stays as it is, only the weights move.

Scratch and KV cache were taken with the first plan. Pure; ``residency.py`` chooses what stays.
"""

from collections.abc import Sequence
from dataclasses import replace

from llamad.engine.info import Extent
from llamad.memory.plan import MemoryPlan
from llamad.memory.residency import Residency, choose_residency, least_memory_bytes


def beside_weights(plan: MemoryPlan) -> int:
    """Return what the plan gives to everything but the weights. Bytes."""
    return plan.planned_bytes - plan.resident_bytes - plan.streaming_bytes


def least_budget(plan: MemoryPlan, extents: Sequence[Extent], file_bytes: int) -> int:
    """Return the budget in which all that can be streamed is. Bytes."""
    return beside_weights(plan) + least_memory_bytes(extents, file_bytes)


def whole_budget(plan: MemoryPlan, file_bytes: int) -> int:
    """Return the budget in which the whole model stays in memory. Bytes."""
    return beside_weights(plan) + file_bytes


def plan_again(
    plan: MemoryPlan, extents: Sequence[Extent], file_bytes: int, budget_bytes: int
) -> tuple[MemoryPlan, Residency]:
    """Return the plan for another budget, and which extents it keeps.

    Below ``least_budget`` it is the plan for that.
    """
    budget = max(budget_bytes, least_budget(plan, extents, file_bytes))
    residency = choose_residency(extents, file_bytes, budget - beside_weights(plan))
    assert residency is not None, "the least budget has room for one"
    lockable = residency.resident_bytes + residency.ring_bytes
    whole = plan.resident_bytes + plan.streaming_bytes
    if plan.lockable_bytes < whole:  # RLIMIT_MEMLOCK allows no more
        lockable = min(lockable, plan.lockable_bytes)
    return replace(
        plan,
        budget_bytes=budget,
        resident_bytes=residency.resident_bytes,
        streamed_bytes=residency.streamed_bytes,
        on_demand_bytes=residency.on_demand_bytes,
        streaming_bytes=residency.overhead_bytes,
        expert_bytes=residency.expert_bytes,
        lockable_bytes=lockable,
    ), residency
