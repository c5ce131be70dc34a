"""A durable job of this life of the service, and how much of it is on the disk."""

from dataclasses import dataclass

from llamad.errors import ErrorKind, LlamadError
from llamad.jobs.job import Job
from llamad.jobs.stored_job import Ended, Outcome, Progress, StoredError
from llamad.jobs.transcript import Transcript


@dataclass(slots=True, eq=False)
class DurableJob:
    """A durable job that has not ended, or whose end is not stored."""

    job: Job
    transcript: Transcript
    model_digest: str
    n_tokens: int = 0  # of the completion that are stored
    n_deltas: int = 0
    stored: bool = False
    started: bool = False  # it was computed since it went on, and is stored as such

    def progress(self) -> Progress | None:
        """Return what the job has that is not stored; None: nothing, or it has ended."""
        if self.transcript.ended:
            return None
        record = self.job.record
        tokens = self.job.tokens[len(record.prompt_tokens) + self.n_tokens :]
        if not tokens:
            return None
        deltas = self.transcript.deltas[self.n_deltas :]
        return Progress(
            record.id, tuple(tokens), tuple(deltas), record.reasoning_tokens, record.mirostat_mu
        )

    def note_stored(self, progress: Progress) -> bool:
        """Take note of what was stored; whether there is more by now."""
        self.n_tokens += len(progress.tokens)
        self.n_deltas += len(progress.deltas)
        return self.transcript.ended or len(self.transcript.deltas) > self.n_deltas

    def ended(self, now: float, now_unix: float) -> Ended:
        """Return the end of the job; ``now`` is monotonic, ``now_unix`` the same since 1970."""
        transcript, record = self.transcript, self.job.record
        error = None if transcript.error is None else StoredError.of(transcript.error)
        outcome = Outcome(record.snapshot(now), transcript.finished, error)
        return Ended(record.id, now_unix, outcome, tuple(transcript.deltas))

    def check_model(self, digest: str, vocab_size: int) -> None:
        """Refuse to go on with another model than the job began with.

        Raises MODEL_REPLACED, and JOB_UNREADABLE for tokens that the model does not have.
        """
        record = self.job.record
        if self.model_digest != digest:
            raise LlamadError(
                ErrorKind.STATE,
                "MODEL_REPLACED",
                f"the file of model {record.model!r} is another than the one job {record.id} was"
                " submitted to: submit it again",
            )
        if not all(0 <= token < vocab_size for token in self.job.tokens):
            raise LlamadError(
                ErrorKind.CORRUPT,
                "JOB_UNREADABLE",
                f"stored job {record.id} has tokens outside the vocabulary, 0..{vocab_size - 1}",
            )
