"""What was said lately, by conversation: few, short, and forgotten after a while."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from llamad_wyoming.config import Config


@dataclass(slots=True)
class Conversation:
    """Turns, each what was said and what was answered."""

    turns: list[tuple[str, str]] = field(default_factory=list)
    last: float = 0.0  # when a turn was added, by the clock


class Conversations:
    """The conversations that are remembered, the one that was silent for longest first."""

    def __init__(self, config: Config, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._clock = clock
        self._by_key: OrderedDict[Hashable, Conversation] = OrderedDict()

    def __len__(self) -> int:
        self._forget()
        return len(self._by_key)

    def messages(self, key: Hashable, said: str) -> list[dict[str, str]]:
        """Return the messages of a chat that goes on with what was said now."""
        self._forget()
        messages = []
        if self._config.system:
            messages.append({"role": "system", "content": self._config.system})
        known = self._by_key.get(key)
        for user, assistant in known.turns if known else ():
            messages.append({"role": "user", "content": user})
            messages.append({"role": "assistant", "content": assistant})
        return [*messages, {"role": "user", "content": said}]

    def add(self, key: Hashable, said: str, answered: str) -> None:
        """Remember a turn; the oldest of the conversation goes where there are too many."""
        conversation = self._by_key.setdefault(key, Conversation())
        conversation.turns.append((said, answered))
        del conversation.turns[: -self._config.conversation_turns or None]
        conversation.last = self._clock()
        self._by_key.move_to_end(key)
        self._forget()

    def _forget(self) -> None:
        """Forget what is old, and what is one too many."""
        oldest = self._clock() - self._config.conversation_seconds
        while self._by_key:
            key, conversation = next(iter(self._by_key.items()))
            if conversation.last > oldest and len(self._by_key) <= self._config.max_conversations:
                return
            del self._by_key[key]
