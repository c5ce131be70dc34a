"""A running job: its slot, its sampler, and its completion as text.

Owns what one sequence knows between two steps. Which rows a step holds is batch.py's; what a token
means for the job's life is the scheduler's.
"""

from dataclasses import dataclass

from llamad.engine.worker import StepSampler
from llamad.jobs.record import Job
from llamad.schedule.prompt_lookup import PromptLookup
from llamad.schedule.runtime import Detokenizer, ModelRuntime
from llamad.schedule.slots import Slot
from llamad.text.stop_strings import StopStrings


class CompletionText:
    """Tokens to text that may be shown: whole characters, and nothing of a stop string."""

    def __init__(self, detokenizer: Detokenizer, stop: tuple[str, ...]) -> None:
        self._detokenizer = detokenizer
        self._stops = StopStrings(stop)

    def push(self, token: int) -> tuple[str, str | None]:
        """Add a token; return the text that is now certain, and the stop string that matched."""
        return self._stops.push(self._detokenizer.push(token))

    def flush(self) -> tuple[str, str | None]:
        """Return what was held back, at the end, and the stop string that its last bytes made."""
        text, matched = self._stops.push(self._detokenizer.flush())
        return (text, matched) if matched is not None else (text + self._stops.flush(), None)


@dataclass(slots=True)
class Running:
    """A job with a sequence of the engine."""

    job: Job
    slot: Slot
    sampler: StepSampler
    text: CompletionText
    n_cached: int = 0  # tokens of the sequence that the KV cache holds
    last_token: int | None = None  # drawn, not yet in the KV cache; None in prefill
    lookup: PromptLookup | None = None  # guesses the next tokens, where the request allows it
    progress_at: float = 0.0  # when the last PrefillProgress was sent, monotonic seconds


def start(job: Job, slot: Slot, model: ModelRuntime, *, speculation: bool) -> Running:
    """Give a job its sampler, with the end of the prompt in the penalty window, and its text.

    ``speculation``: the service's default, for a request that does not say.
    Raises the LlamadError of a sampler that refuses its parameters.
    """
    sampling = job.request.sampling
    sampler = model.new_sampler(sampling, seed=job.seed)
    n_prompt = len(job.prompt_tokens)
    window = n_prompt if sampling.repeat_last_n < 0 else min(n_prompt, sampling.repeat_last_n)
    for token in job.prompt_tokens[n_prompt - window :]:
        sampler.accept(token)
    if job.request.speculation is not None:
        speculation = job.request.speculation
    return Running(
        job,
        slot,
        sampler,
        CompletionText(model.new_detokenizer(), job.request.stop),
        lookup=PromptLookup(job.prompt_tokens) if speculation else None,
    )
