"""What ``status`` and ``top`` say to people of speed, queue, board and time: phrases, no layout."""

import pwd
from collections import Counter
from collections.abc import Iterable, Sequence

from llamactl.output import counted
from llamad_client import Board, Job, Status

CLASSES = ("interactive", "normal", "batch")
QUEUED = "queued"


def duration(seconds: float) -> str:
    """Return a time for people, in its two largest units: 35 s, 12 min 5 s, 3 h 2 min, 2 d 4 h."""
    whole = int(seconds)
    for unit, size, smaller, least in (
        ("d", 86_400, "h", 3600),
        ("h", 3600, "min", 60),
        ("min", 60, "s", 1),
    ):
        if whole >= size:
            rest = whole % size // least
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def by_class(jobs: Iterable[Job]) -> dict[str, dict[str, int]]:
    """Return how many jobs of each class wait and run."""
    jobs = list(jobs)
    queued = Counter(job.priority for job in jobs if job.state == QUEUED)
    running = Counter(job.priority for job in jobs if job.state != QUEUED)
    return {
        name: {"queued": queued[name], "running": running[name]}
        for name in dict.fromkeys((*CLASSES, *queued, *running))
    }


def owner(job: Job) -> str:
    """Return the user whose job it is: the one a gateway named, or who asked."""
    if job.on_behalf_of or job.owner_uid is None:
        return job.on_behalf_of or "-"
    try:
        return pwd.getpwuid(job.owner_uid).pw_name
    except KeyError:
        return str(job.owner_uid)


def queue(status: Status, jobs: Iterable[Job]) -> str:
    """Say how many requests run and wait, and of which classes."""
    classes = by_class(jobs)

    def of(state: str) -> str:
        named = [f"{n[state]} {name}" for name, n in classes.items() if n[state]]
        return f" ({', '.join(named)})" if named else ""

    text = f"{status.jobs_running} of {status.sequence_slots} run{of('running')}"
    text += f", {status.jobs_queued} of {status.queue_capacity} wait{of('queued')}"
    return text if not status.jobs_stored else f"{text}, {status.jobs_stored} stored"


def speed(status: Status) -> str:
    """Say how fast an answer comes; nothing before the first step."""
    model = status.model
    if model is None or not model.seconds_per_token:
        return ""
    return (
        f"{1 / model.seconds_per_token:.3g} tokens/s for a request alone,"
        f" {model.seconds_per_token:.3g} s a token"
    )


def kv_cache(status: Status) -> str:
    """Say how full the KV cache is."""
    used = status.kv_blocks_total - status.kv_blocks_free
    text = f"{used} of {status.kv_blocks_total} blocks used"
    return f"{text}, {status.kv_blocks_cached} hold prefixes" if status.kv_blocks_cached else text


def heat(board: Board | None) -> str:
    """Say how hot the board is; nothing when it does not tell."""
    if board is None or board.temperature_celsius is None:
        return ""
    text = f"{board.temperature_celsius:.0f} °C"
    return f"{text}, not slowed down" if board.throttled is False else text


def warnings(board: Board | None) -> Sequence[str]:
    """Return a sentence for everything that slows the board down, and what to do about it."""
    if board is None:
        return ()
    sentences = []
    if board.under_voltage:
        sentences.append(
            "the power supply is too weak now, and the board slows itself down:"
            " use a better power supply"
        )
    elif board.under_voltage_before:
        sentences.append(
            "the power supply was too weak since the board started: use a better power supply"
        )
    if board.throttled and not board.under_voltage:
        sentences.append("the board is too hot now and slows itself down: give it a fan")
    elif board.throttled_before and not (board.under_voltage or board.under_voltage_before):
        sentences.append("the board slowed itself down since it started: give it a fan")
    return sentences


def requests(status: Status) -> str:
    """Say what has been done since the service started."""
    return (
        f"{counted(status.requests_finished, 'request')},"
        f" {counted(status.prompt_tokens, 'prompt token')},"
        f" {counted(status.generated_tokens, 'generated token')}"
    )
