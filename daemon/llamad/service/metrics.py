"""The service's numbers in the text format of Prometheus.

Owns the names, the help and the labels; the only module that imports prometheus_client, which takes
50 ms on a PC, several times that on a board, and 2 MB: so ``monitor.py`` imports it when somebody
asks for the first time. The library's own counters are not used, nor its registry of the process:
what is written was counted by others.

Labels have few values, all ours: a class, a state, a part, a reason. Who asked is none of them.
Names follow prometheus.io, "Metric and label naming": base units, ``_total`` for what only grows.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from llamad.jobs.event import FinishReason
from llamad.jobs.record import JobState
from llamad.jobs.request import Priority
from llamad.memory.plan import MemoryPlan
from llamad.service.measures import Histogram
from llamad.service.reading import Reading
from llamad.service.state import Phase

ENDS = (*(reason.value for reason in FinishReason), JobState.FAILED.value)
_NO_PART_OF_MEMORY = {
    "n_ctx",
    "budget_bytes",
    "kv_blocks",
    "kv_local_blocks",
    "streamed_bytes",
    "on_demand_bytes",
    "expert_bytes",
    "expert_share",
    "lockable_bytes",
}


def text(reading: Reading) -> str:
    """Return all metrics; any thread."""
    registry = CollectorRegistry()
    registry.register(_Once(reading))
    return generate_latest(registry).decode()


class _Once(Collector):
    """The collector of one reading."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def collect(self) -> Iterable[Metric]:
        """Yield the families, in the order in which they are read."""
        yield from _service(self._reading)
        yield from _requests(self._reading)
        yield from _steps(self._reading)
        yield from _model(self._reading)
        yield from _draft(self._reading)
        yield from _board(self._reading)


def _service(r: Reading) -> Iterator[Metric]:
    yield _gauge(
        "build_info",
        "Always 1; the versions of the service and its engine.",
        {(r.version, r.engine_version): 1},
        ("version", "engine"),
    )
    yield _gauge("uptime_seconds", "Since the service started.", {(): r.uptime_seconds})
    yield _gauge(
        "state",
        "1 for what the service is doing: loading, ready, no_model, failed or stopping.",
        {(phase.value,): phase is r.phase for phase in Phase},
        ("state",),
    )


def _requests(r: Reading) -> Iterator[Metric]:
    m = r.measures
    yield _gauge("jobs_queued", "Jobs that wait.", _by_class(r.queued), ("class",))
    yield _gauge("jobs_running", "Jobs that are computed.", _by_class(r.running), ("class",))
    yield _gauge("jobs_stored", "Durable jobs that have not ended.", {(): r.stored})
    if r.counts is not None:
        yield _gauge("queue_capacity", "Jobs that may wait.", {(): r.counts.queue_capacity})
        yield _gauge("sequence_slots", "Jobs that may run together.", {(): r.counts.sequence_slots})
    yield _counter(
        "requests",
        "Requests that ended, by class and end: a finish reason, or failed.",
        {(_name(p), end): m.ends[p, end] for p in Priority for end in ENDS},
        ("class", "end"),
    )
    yield _counter(
        "request_errors",
        "Accepted requests that ended with an error, by its reason.",
        _by_reason(m.job_errors),
        ("reason",),
    )
    yield _counter(
        "call_errors",
        "Calls that ended with an error, refused requests included, by its reason.",
        _by_reason(m.call_errors),
        ("reason",),
    )
    yield _histogram_by_class(
        "queue_wait_seconds", "From a request to its first step.", m.wait_seconds
    )
    yield _histogram_by_class(
        "time_to_first_token_seconds",
        "From a request to its first token; counted when the request ends.",
        m.first_token_seconds,
    )
    yield _histogram(
        "time_per_output_token_seconds",
        "Mean of a request's tokens after the first; counted when the request ends.",
        m.output_token_seconds,
    )
    yield _counter("prompt_tokens", "Tokens of prompts that were read.", {(): r.prompt_tokens})
    yield _counter("generated_tokens", "Tokens of answers.", {(): r.generated_tokens})


def _steps(r: Reading) -> Iterator[Metric]:
    yield _histogram("step_rows", "Tokens that a step computes together.", r.measures.step_rows)
    yield _histogram(
        "step_seconds",
        "Duration of a step; the rate of its sum is the utilisation, 0 to 1.",
        r.measures.step_seconds,
    )


def _model(r: Reading) -> Iterator[Metric]:
    """Yield what there is to say while a model is loaded."""
    if r.model is None or r.counts is None or r.measured is None:
        return
    model, counts, measured, prefix = r.model, r.counts, r.measured, r.counts.prefix
    yield _gauge(
        "model_info",
        "Always 1; the loaded model.",
        {(model.name, model.architecture, model.kernel_set, model.kv_type): 1},
        ("model", "architecture", "kernel_set", "kv_type"),
    )
    yield _gauge("model_load_seconds", "How long loading took.", {(): model.load_seconds})
    yield _gauge("context_tokens", "Tokens that one request may hold.", {(): model.n_ctx})
    yield _gauge("model_file_bytes", "Size of the model file.", {(): model.file_bytes})
    yield _gauge(
        "model_locked_bytes", "Of the model file, locked in memory.", {(): measured.locked_bytes}
    )
    yield _gauge(
        "model_streamed_bytes",
        "Of the model file, read from the disk again for every step.",
        {(): measured.streamed_bytes},
    )
    yield _counter(
        "model_read_bytes",
        "Read from the disk for steps, since the model was loaded.",
        {(): measured.read_bytes},
    )
    yield _gauge(
        "seconds_per_token",
        "Of a request alone, as the last steps teach; 0 before the first.",
        {(): counts.seconds_per_token},
    )
    yield _gauge("memory_plan_bytes", "What memory is meant for.", _parts(model.plan), ("part",))
    if model.plan.budget_bytes is not None:
        yield _gauge("memory_budget_bytes", "Memory in all.", {(): model.plan.budget_bytes})
    yield _gauge(
        "kv_blocks",
        "Blocks of the KV cache: used by jobs, free with a prefix in them, free and empty.",
        {
            ("used",): counts.kv_blocks_total - counts.kv_blocks_free,
            ("cached",): counts.kv_blocks_cached,
            ("empty",): counts.kv_blocks_free - counts.kv_blocks_cached,
        },
        ("state",),
    )
    yield _gauge("kv_bytes", "Size of the KV cache.", {(): model.kv_bytes})
    yield _counter("prefix_hits", "Prompts of which a part was known.", {(): prefix.hits})
    yield _counter("prefix_misses", "Prompts of which nothing was known.", {(): prefix.misses})
    yield _counter(
        "prefix_reused_tokens", "Tokens of prompts that were known.", {(): prefix.tokens_reused}
    )
    disk = r.prefix_bytes
    if disk:
        yield _gauge("prefix_disk_bytes", "Prefixes on the disk.", {(): disk["bytes_on_disk"]})
        yield _counter("prefix_written_bytes", "Written of prefixes.", {(): disk["bytes_written"]})
        yield _counter("prefix_read_bytes", "Read of prefixes.", {(): disk["bytes_read"]})


def _draft(r: Reading) -> Iterator[Metric]:
    """Yield what a draft model did, where one is used."""
    draft = None if r.counts is None else r.counts.draft
    if draft is None:
        return
    yield _counter("draft_guessed_tokens", "Tokens that a draft guessed.", {(): draft.guessed})
    yield _counter("draft_accepted_tokens", "Of these, those that came.", {(): draft.accepted})
    yield _gauge(
        "draft_paused", "1 while its guesses cost more than they save.", {(): draft.paused}
    )


def _board(r: Reading) -> Iterator[Metric]:
    """Yield what the board tells; what it does not tell has no metric."""
    heat = r.heat
    told = (
        ("temperature_celsius", "Of the hottest sensor.", heat.celsius),
        ("throttled", "1 while heat or voltage slow it down.", heat.throttled),
        ("under_voltage", "1 while the power supply is too weak.", heat.under_voltage),
        ("throttled_since_boot", "1 once it was slowed down.", heat.throttled_before),
        (
            "under_voltage_since_boot",
            "1 once the power supply was too weak.",
            heat.under_voltage_before,
        ),
    )
    for name, meaning, value in told:
        if value is not None:
            yield _gauge(f"board_{name}", meaning, {(): value})


# ---- families ------------------------------------------------------------------------------------

Values = Mapping[tuple[str, ...], float]  # by the values of the labels


def _name(priority: Priority) -> str:
    return priority.name.lower()


def _by_class(values: Mapping[Priority, int]) -> Values:
    return {(_name(priority),): values.get(priority, 0) for priority in Priority}


def _by_reason(counter: Counter[str]) -> Values:
    return {(reason,): count for reason, count in sorted(counter.items())}


def _parts(plan: MemoryPlan) -> Values:
    return {
        (name.removesuffix("_bytes"),): value
        for name, value in dataclasses.asdict(plan).items()
        if name not in _NO_PART_OF_MEMORY
    }


def _gauge(name: str, text: str, values: Values, labels: tuple[str, ...] = ()) -> Metric:
    family = GaugeMetricFamily(f"llamad_{name}", text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _counter(name: str, text: str, values: Values, labels: tuple[str, ...] = ()) -> Metric:
    family = CounterMetricFamily(f"llamad_{name}", text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    family = HistogramMetricFamily(f"llamad_{name}", text)
    family.add_metric((), _buckets(histogram), histogram.sum)
    return family


def _histogram_by_class(name: str, text: str, histograms: Mapping[Priority, Histogram]) -> Metric:
    family = HistogramMetricFamily(f"llamad_{name}", text, labels=("class",))
    for priority, histogram in histograms.items():
        family.add_metric((_name(priority),), _buckets(histogram), histogram.sum)
    return family


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    bounds = [*map(floatToGoString, histogram.bounds), "+Inf"]
    return list(zip(bounds, accumulate(histogram.counts), strict=True))
