"""What the clients of ``make load`` ask for: a fixed set of seeded requests, of all lengths.

Owns the requests, not what a client does with one (client.py). The same set every time, so that
the answer of each is known from a run of its own.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from llamad_client import AsyncClient, AsyncCompletion
from llamad_client.request import Options

Priority = Literal["interactive", "normal", "batch"]
CLASSES: tuple[Priority, ...] = ("interactive", "normal", "batch")

N_REQUESTS = 48
WORDS = (4, 12, 40, 120, 300)  # of a prompt
TOKENS = (4, 12, 32, 64)  # of an answer, at most
STOPS = ((), (), (), (".",), ("the", "\n\n"))
PASSAGE = Path(__file__).parent.parent / "golden" / "passage.txt"


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """One request: a chat or a prompt, with options that make its answer the same every time."""

    text: str
    is_chat: bool
    options: Options

    def ask(
        self, client: AsyncClient, priority: Priority, deadline_seconds: float | None = None
    ) -> AsyncCompletion:
        """Send it; the class and the deadline are not part of what determines the answer."""
        options = Options(**self.options, priority=priority)
        if deadline_seconds is not None:
            options["deadline_seconds"] = deadline_seconds
        if not self.is_chat:
            return client.generate(self.text, **options)
        return client.chat([{"role": "user", "content": self.text}], **options)


def requests(seed: int = 1) -> Sequence[Asked]:
    """Return the set; half of the prompts begin with the same words."""
    chosen = random.Random(seed)
    words = PASSAGE.read_text(encoding="utf-8").split()
    made = []
    for number in range(N_REQUESTS):
        length = chosen.choice(WORDS)
        begin = chosen.choice((0, chosen.randrange(len(words) - length)))
        options = Options(
            max_tokens=chosen.choice(TOKENS),
            stop=chosen.choice(STOPS),
            temperature=chosen.choice((0.0, 0.8, 1.2)),
            repeat_penalty=chosen.choice((1.0, 1.1)),
            seed=number,
        )
        text = " ".join(words[begin : begin + length])
        made.append(Asked(text, chosen.random() < 0.5, options))
    return made
