"""Stored jobs that were computed when the service failed: one may be why.

DESIGN. A job that crashes or hangs the service would do it again at every start. So each start of a
durable job's run is counted on the disk, before its first step. The count is of starts in a row
without a token that was stored since; a stored token makes it 0, and a stop of the service forgets
it. Where the service failed by itself (last_end.py), the jobs with a count are the suspects; after
a SIGKILL or a power cut nobody is, and counts begin anew:

- One with ``MOST_STARTS`` is given up.
- The others go on one at a time, those with most starts first. One is cleared when a token of it is
  stored and it has gone on for ``TRIAL_SECONDS`` more, so that it comes past where it was lost.
- Only the first of a life of the service is counted: beside the next ones run some that were just
  cleared. So a job that is innocent is never given up because of another stored one.

Jobs that were not computed, new ones and attached requests go on meanwhile. Owns who the suspects
are and who is on trial; the counts on the disk are store.py's. Pure, but for its order of calls.
"""

from llamad.errors import ErrorKind, LlamadError
from llamad.jobs.job import Job

MOST_STARTS = 3  # without a stored token
TRIAL_SECONDS = 2.0  # more than waits to be stored: durable_jobs.SAVE_SECONDS


class Suspects:
    """The suspects of one life of the service, from its start until each is cleared or ended."""

    def __init__(self) -> None:
        self._starts: dict[str, int] = {}  # fruitless, of the lives before; oldest job first
        self._on_trial: str | None = None
        self._progressed = False  # whether a token of it was stored
        self._counted = False  # whether one was, in this life

    @property
    def on_trial(self) -> str | None:
        """The suspect that goes on now."""
        return self._on_trial

    def __len__(self) -> int:
        """Return how many are not cleared."""
        return len(self._starts)

    def add(self, job_id: str, starts: int) -> None:
        """Suspect a job that was computed when the service failed."""
        self._starts[job_id] = starts

    def remove(self, job_id: str) -> bool:
        """Suspect a job no more: it was cleared, it ended, or its model went; whether one was."""
        if self._on_trial == job_id:
            self._on_trial = None
        return self._starts.pop(job_id, None) is not None

    def rank(self, job: Job) -> tuple[int, int]:
        """Return where a job stands among those that go on: the lowest first, equals by age."""
        return -self._starts.get(job.id, MOST_STARTS), job.record.priority

    def may_go_on(self, job_id: str) -> bool:
        """Whether a job goes on now; a suspect that does is on trial."""
        if job_id not in self._starts:
            return True
        if self._on_trial is None:
            self._on_trial, self._progressed = job_id, False
        return self._on_trial == job_id

    def progressed(self, job_id: str) -> bool:
        """Take note of a stored token; whether it is the first of the job on trial."""
        first = self._on_trial == job_id and not self._progressed
        self._progressed |= first
        return first

    def count(self, job_id: str) -> int | None:
        """Return the starts to store before a job's first step; None: what is stored stays."""
        if job_id not in self._starts:
            return 1
        if self._counted:
            return None
        self._counted = True
        self._starts[job_id] += 1
        return self._starts[job_id]


def given_up(job_id: str, starts: int) -> LlamadError:
    """Return the error of a job that is not tried again."""
    return LlamadError(
        ErrorKind.STATE,
        "JOB_GIVEN_UP",
        f"the service failed {starts} times while it computed job {job_id}, and no token was stored"
        " in between: the job is not tried again. Submit it again if something else was the reason;"
        " the journal may tell",
    )
