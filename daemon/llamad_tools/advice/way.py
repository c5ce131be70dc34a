"""One way to run a model on a machine: a row of the report of ``llamad fit``.

A way says what to do, what it gives and what it costs. The report prints ways in their order, the
recommended one first; where a way comes from is not its business.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from llamad_tools.advice.loss import Loss


@dataclass(frozen=True, slots=True)
class Way:
    """A row. Bytes and tokens; 0: not known before it is tried."""

    name: str  # what it is for, in a word or two: "best", "faster"
    what: str  # the file: a mix, or what it is
    file_bytes: int
    n_ctx: int  # tokens of one sequence, planned by the service
    loss: Loss | None  # of perplexity; None: not known
    tokens_per_second: Mapping[str, float]  # machine -> at most
    command: str = ""  # what to type for it
    settings: Mapping[str, object] = field(default_factory=dict)  # of [model], beyond the defaults
