"""How much memory to use while others want some too: a grant that shrinks at once and grows slowly.

The grant is the budget that the loaded model is planned with. It is lowered when less is there (a
limit of a cgroup, other programs) and step by step while the kernel reports that processes wait for
memory. It is raised by steps, when more than a step has been free and nothing has pressed for a
while; pressure soon after that doubles the while. Pure: readings in, decisions out, with the time
as a number. Who reads and who obeys is ``service/memory_watch.py``.
"""

from dataclasses import dataclass

MIB = 1 << 20

STEP_SHARE = 32  # a step is this part of the model file
MIN_STEP_BYTES = 16 * MIB
GIVE_SECONDS = 2.0  # between two steps given back: the kernel's window of pressure
TAKE_SECONDS = 2.0  # between two steps taken
QUIET_SECONDS = 10.0  # without pressure before a step is taken
MAX_QUIET_SECONDS = 320.0
LOOK_SECONDS, MAX_LOOK_SECONDS = 10.0, 320.0  # between two looks for what has become free


@dataclass(frozen=True, slots=True)
class Reading:
    """What the machine says now. Bytes; None: no limit is known."""

    budget_bytes: int | None  # for this process in all, what it has included
    limit_bytes: int | None = None  # of the strictest cgroup
    pressed: bool = False  # processes have waited for memory, or a cgroup has met its limit
    limit_written: bool = False  # somebody wrote a limit, perhaps in vain


@dataclass(frozen=True, slots=True)
class Decision:
    """The budget to plan with, and when to read again if nothing happens; None: never."""

    grant_bytes: int
    look_seconds: float | None


class Grant:
    """The budget in force, and what was seen before. Bytes and seconds."""

    def __init__(
        self,
        grant_bytes: int,
        *,
        wanted_bytes: int,
        least_bytes: int,
        file_bytes: int,
        limit_bytes: int | None = None,
    ) -> None:
        """Begin with what the model was loaded with.

        wanted_bytes: with which everything fits; more is never taken. least_bytes: below which
        there is nothing to give back. limit_bytes: as a reading would say.
        """
        self._wanted = wanted_bytes
        self._least = min(least_bytes, wanted_bytes)
        self.bytes = min(grant_bytes, wanted_bytes)
        self.step_bytes = max(MIN_STEP_BYTES, file_bytes // STEP_SHARE)
        self._limit = limit_bytes
        self._undisturbed = self.bytes
        self._quiet = QUIET_SECONDS
        self._pressed_at = self._taken_at = -float("inf")
        self._given_at = -float("inf")
        self._look = LOOK_SECONDS

    def decide(self, now: float, reading: Reading) -> Decision:
        """Return what follows from a reading."""
        before = self.bytes
        room = self._wanted if reading.budget_bytes is None else reading.budget_bytes
        pressed = reading.pressed or self._refused(reading)
        if self._raised(reading):
            self._pressed_at, self._quiet, self._look = -float("inf"), QUIET_SECONDS, LOOK_SECONDS
        self._limit = reading.limit_bytes
        if pressed:
            self._press(now, at_once=reading.limit_written)
        self.bytes = min(self.bytes, room)
        if not pressed and self.bytes == before:
            self._take(now, min(room, self._wanted))
        self.bytes = max(self._least, self.bytes)
        if self.bytes < before:
            self._given_at, self._look = now, LOOK_SECONDS
        return Decision(self.bytes, self._next_look(now, grew=self.bytes > before))

    def _refused(self, reading: Reading) -> bool:
        """Whether a limit was written that did not change: v1 refuses one below what is locked."""
        return reading.limit_written and reading.limit_bytes == self._limit

    def _raised(self, reading: Reading) -> bool:
        if self._limit is None:
            return False
        return reading.limit_bytes is None or reading.limit_bytes > self._limit

    def _press(self, now: float, *, at_once: bool) -> None:
        if now - self._taken_at < self._quiet:
            self._quiet = min(2 * self._quiet, MAX_QUIET_SECONDS)
        self._pressed_at = now
        if at_once or now - self._given_at >= GIVE_SECONDS:
            self._given_at = now
            self.bytes -= self.step_bytes

    def _take(self, now: float, room: int) -> None:
        """Take a step of what is free, all of it where less is left to be wanted."""
        more = room - self.bytes
        enough = more >= self.step_bytes or (more > 0 and room == self._wanted)
        quiet = now - self._pressed_at >= self._quiet
        if enough and quiet and now - self._taken_at >= TAKE_SECONDS:
            self._taken_at = now
            self.bytes += min(more, self.step_bytes)
            self._undisturbed = max(self._undisturbed, self.bytes)

    def _next_look(self, now: float, *, grew: bool) -> float | None:
        if grew and self.bytes < self._wanted:
            return TAKE_SECONDS
        if self.bytes >= self._undisturbed:
            self._look = LOOK_SECONDS
            return None
        look, self._look = self._look, min(2 * self._look, MAX_LOOK_SECONDS)
        return max(look, self._pressed_at + self._quiet - now)
