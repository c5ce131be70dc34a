"""One client of ``make load``: asks, and reads to the end, cancels, leaves or hangs up.

Owns what a client does and what it must see then: the answer that the request has alone, or the
beginning of it, or an error that is documented for what it did.
"""

import asyncio
import random
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llamad_client import AsyncClient, AsyncCompletion, ClientError, Queued, Result, TextDelta
from load.workload import CLASSES, Asked, Priority

# What a client of a busy service has to expect: it comes back later.
BUSY = frozenset({"QUEUE_FULL", "OWNER_QUEUE_FULL"})
MOST_PAUSE_SECONDS = 2.0  # before a refused client comes back, whatever the service advises
WAYS = {"reads": 70, "cancels": 10, "leaves": 10, "has a deadline": 5, "hangs up": 5}


@dataclass(slots=True)
class Seen:
    """What all clients saw. Seconds."""

    ended: Counter[str] = field(default_factory=Counter)
    first_token: dict[Priority, list[float]] = field(default_factory=lambda: defaultdict(list))
    wrong: list[str] = field(default_factory=list)


class _Answer:
    """What came of one answer, and when its first piece came."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.first_token: float | None = None
        self.job_id = ""
        self.text = ""
        self.result: Result | None = None

    async def read(self, completion: AsyncCompletion, pieces: int | None) -> None:
        """Read so many pieces of text, or to the end."""
        async for event in completion.events():
            if isinstance(event, Queued):
                self.job_id = event.job_id
            elif isinstance(event, TextDelta):
                if self.first_token is None:
                    self.first_token = time.monotonic() - self.began
                self.text += event.text
                pieces = None if pieces is None else pieces - 1
                if pieces == 0:
                    return
            elif isinstance(event, Result):
                self.result = event


@dataclass(slots=True)
class LoadClient:
    """A client with a connection and random ways of its own."""

    socket: Path
    answers: Mapping[Asked, str]
    seen: Seen
    seed: int

    async def run(self, until: float) -> None:
        """Ask, again and again, until this monotonic time."""
        choice = random.Random(self.seed)
        asked = list(self.answers)
        client = AsyncClient(self.socket)
        try:
            while time.monotonic() < until:
                way = choice.choices(list(WAYS), list(WAYS.values()))[0]
                await self._ask(client, choice.choice(asked), way, choice)
                if way == "hangs up":
                    await client.close()
                    client = AsyncClient(self.socket)
        finally:
            await client.close()

    async def _ask(
        self, client: AsyncClient, asked: Asked, way: str, choice: random.Random
    ) -> None:
        priority = choice.choice(CLASSES)
        deadline = choice.uniform(0.05, 3.0) if way == "has a deadline" else None
        pieces = choice.randrange(1, 8) if way in ("cancels", "leaves", "hangs up") else None
        answer = _Answer()
        try:
            completion = asked.ask(client, priority, deadline)
            try:
                await answer.read(completion, pieces)
                if way == "cancels" and answer.result is None:
                    await client.cancel(answer.job_id)
                    await answer.read(completion, None)
            finally:
                if way != "hangs up" or answer.result is not None:
                    completion.cancel()
        except ClientError as error:
            await self._failed(error, way)
            return
        finally:
            if answer.first_token is not None:
                self.seen.first_token[priority].append(answer.first_token)
        self._check(asked, way, answer)

    async def _failed(self, error: ClientError, way: str) -> None:
        self.seen.ended[error.reason] += 1
        if error.reason in BUSY:
            await asyncio.sleep(min(MOST_PAUSE_SECONDS, error.retry_after_seconds or 1.0))
        elif not (error.reason == "DEADLINE_EXCEEDED" and way == "has a deadline"):
            self.seen.wrong.append(f"a client that {way} heard {error.reason}: {error.message}")

    def _check(self, asked: Asked, way: str, answer: _Answer) -> None:
        """Compare with the answer that the request has alone."""
        alone, result = self.answers[asked], answer.result
        whole = result is not None and result.finish_reason != "cancelled"
        self.seen.ended[result.finish_reason if result is not None else way] += 1
        if answer.text != alone if whole else not alone.startswith(answer.text):
            self.seen.wrong.append(
                f"a client that {way}: seed {asked.options['seed']} gave {answer.text!r},"
                f" alone {alone!r}"
            )
        if not whole and way not in ("cancels", "leaves", "hangs up"):
            self.seen.wrong.append(f"a client that {way} got no end")
