"""Where a job stands among the others: whose it is, its class, and since when it waits or runs.

Plain data; what follows from it is policy.py's.
"""

from dataclasses import dataclass, field

from llamad.jobs.request import Priority


@dataclass(slots=True)
class Standing:
    """Times are monotonic seconds."""

    owner: str
    priority: Priority
    waiting_since: float  # this time: since it came, or was paused
    started_at: float = 0.0  # this time; likewise
    caught_up_at: float | None = None  # when it had read all of its tokens, since it started
    protected_until: float = 0.0  # the more urgent leave it alone: it had waited too long
    last_row_at: float = 0.0  # when a step with a row of it ended
    flow: tuple[str, Priority] = field(init=False)  # among these it waits in order of submission

    def __post_init__(self) -> None:
        self.flow = self.owner, self.priority
