"""The numbers of one moment, which ``monitor.py`` copies and ``metrics.py`` writes."""

from collections.abc import Mapping
from dataclasses import dataclass

from llamad.board import Heat
from llamad.jobs.request import Priority
from llamad.schedule.counts import Counts
from llamad.service.disk_meter import Measured
from llamad.service.measures import Measures
from llamad.service.state import ModelFacts, Phase


@dataclass(frozen=True, slots=True)
class Reading:
    """Everything that the metrics tell, at one moment. The last four are empty without a model."""

    version: str
    engine_version: str
    uptime_seconds: float
    phase: Phase
    queued: Mapping[Priority, int]
    running: Mapping[Priority, int]
    stored: int
    prompt_tokens: int
    generated_tokens: int
    measures: Measures
    heat: Heat
    model: ModelFacts | None
    counts: Counts | None
    measured: Measured | None
    prefix_bytes: Mapping[str, int]  # as Prefixes.disk_bytes has them
