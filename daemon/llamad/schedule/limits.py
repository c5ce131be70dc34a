"""The bounds of one scheduler, as the configuration sets them. Plain data."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from llamad.schedule.admission import OwnerLimits
from llamad.schedule.policy import AGEING_SECONDS

MAX_PROMPTS_BYTES = 4 << 20  # of prompts that wait for the tokenizer, or are being encoded


@dataclass(frozen=True, slots=True)
class Limits:
    """The configured bounds. Jobs, bytes, seconds."""

    queue_capacity: int = 64
    step_seconds: float = 0.25  # of one step, where others could wait for it
    ageing_seconds: float = AGEING_SECONDS  # of waiting that count as a class
    stream_buffer_bytes: int = 1 << 20  # unread text of one client
    deadline_seconds: float = 0.0  # of a request that names none; 0 is none
    speculation: bool = False  # of a request that does not say
    prompts_bytes: int = MAX_PROMPTS_BYTES
    owner: OwnerLimits = field(
        default_factory=OwnerLimits
    )  # of everybody whom ``owners`` does not name
    owners: Mapping[str, OwnerLimits] = field(default_factory=dict)

    def of(self, owner: str) -> OwnerLimits:
        """Return the limits of one owner."""
        return self.owners.get(owner, self.owner)
