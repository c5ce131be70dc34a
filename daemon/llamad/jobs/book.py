"""What is known of jobs that have ended: the last ones, totals, and one log line for each.

Owns memory and totals, not the ending itself. It keeps snapshots only, so that a prompt is
forgotten with its job.
"""

import dataclasses
import logging
from collections import OrderedDict

from llamad.jobs.event import Timings
from llamad.jobs.record import JobSnapshot, JobState
from llamad.logs import fields

logger = logging.getLogger(__name__)

RECENT_WEIGHT = 0.2  # of the newest job in the mean duration


class JobHistory:
    """The last ``capacity`` ended jobs, oldest first."""

    def __init__(self, capacity: int) -> None:
        self.n_finished = 0  # jobs that came to their natural end, since the start
        self.mean_run_seconds = (
            0.0  # from the first prefill step to the end; recent jobs weigh more
        )
        self._capacity = capacity
        self._jobs: OrderedDict[str, JobSnapshot] = OrderedDict()

    def add(self, job: JobSnapshot, timings: Timings) -> None:
        """Remember an ended job, forget the oldest beyond the capacity, and write the log line."""
        self._jobs[job.id] = job
        while len(self._jobs) > self._capacity:
            self._jobs.popitem(last=False)
        if job.state is JobState.FINISHED:
            self.n_finished += 1
        if job.running_seconds > 0:
            weight = RECENT_WEIGHT if self.mean_run_seconds else 1.0
            self.mean_run_seconds += weight * (job.running_seconds - self.mean_run_seconds)
        _log(job, timings)

    def get(self, job_id: str, now: float) -> JobSnapshot | None:
        """Return an ended job with its age at ``now``; None when it is not, or no longer, known."""
        job = self._jobs.get(job_id)
        return None if job is None else dataclasses.replace(job, age_seconds=now - job.submitted_at)

    def ids(self) -> list[str]:
        """Return the ids of the remembered jobs."""
        return list(self._jobs)


def _log(job: JobSnapshot, timings: Timings) -> None:
    logger.log(
        logging.WARNING if job.state is JobState.FAILED else logging.INFO,
        fields(
            f"request {job.state.value}",
            job=job.id,
            request=job.request_id or None,
            reason=job.error_reason if job.finish_reason is None else job.finish_reason.value,
            prompt_tokens=job.prompt_tokens,
            completion_tokens=job.completion_tokens,
            queue_seconds=timings.queue_seconds,
            prefill_seconds=timings.prefill_seconds,
            ttft_seconds=timings.time_to_first_token_seconds,
            tpot_seconds=timings.time_per_output_token_seconds,
            error=job.error or None,
        ),
    )
