"""The connections to a gateway: how many there may be, and how long there has been none."""

import asyncio
from collections import Counter
from typing import Protocol


class Limits(Protocol):
    """The keys of a configuration that count here."""

    @property
    def max_connections(self) -> int:
        """In all."""

    @property
    def max_connections_per_address(self) -> int:
        """Of one address."""

    @property
    def idle_exit_seconds(self) -> int:
        """Without a connection, after which the gateway ends; 0: never."""


class Connections:
    """The connections that are open, by address, and how long there has been none."""

    def __init__(self, limits: Limits) -> None:
        self.idle = asyncio.Event()
        self._limits = limits
        self._by_address: Counter[str] = Counter()
        self._idle_timer: asyncio.TimerHandle | None = None
        self._exits_when_idle = False

    def exit_when_idle(self) -> None:
        """Set ``idle`` once there has been no connection for as long as configured."""
        self._exits_when_idle = self._limits.idle_exit_seconds > 0
        self._watch()

    def enter(self, address: str) -> bool:
        """Count a connection; False where there are too many."""
        self._by_address[address] += 1
        self._watch()
        return (
            self._by_address.total() <= self._limits.max_connections
            and self._by_address[address] <= self._limits.max_connections_per_address
        )

    def leave(self, address: str) -> None:
        """Forget a connection that was counted."""
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]
        self._watch()

    def _watch(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        if self._exits_when_idle and not self._by_address:
            loop = asyncio.get_running_loop()
            self._idle_timer = loop.call_later(self._limits.idle_exit_seconds, self.idle.set)
