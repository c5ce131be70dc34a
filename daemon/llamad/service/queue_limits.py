"""From the configuration to what a scheduler keeps: bounds of the queue, of steps, of owners."""

from collections.abc import Mapping
from typing import Any

from llamad.config import Config
from llamad.jobs.request import Priority
from llamad.memory.demand import capacity_of
from llamad.schedule.admission import OwnerLimits
from llamad.schedule.limits import Limits


def limits_of(config: Config) -> Limits:
    """Return the bounds of requests."""
    return Limits(
        queue_capacity=config.queue.capacity,
        step_seconds=config.queue.step_seconds,
        stream_buffer_bytes=config.limits.stream_buffer_bytes,
        deadline_seconds=config.limits.default_deadline_seconds,
        speculation=config.model.speculation,
        prompts_bytes=capacity_of(config.model).waiting_bytes,
        ageing_seconds=config.queue.ageing_seconds,
        owner=_owner_limits(config, {}, "[queue]"),
        owners={
            name: _owner_limits(config, entries, f'[owners."{name}"]')
            for name, entries in config.owners.items()
        },
    )


def _owner_limits(config: Config, entries: Mapping[str, Any], section: str) -> OwnerLimits:
    """Return what an owner may have; what its section leaves out stands in [queue]."""
    most_urgent = entries.get("most_urgent", config.queue.most_urgent)
    return OwnerLimits(
        jobs=entries.get("jobs", config.queue.owner_jobs),
        most_urgent=Priority[most_urgent.upper()],
        section=section,
    )
