"""Whether guessing pays: the time that it has lost, and rests where that is too much.

DESIGN. Every round of guesses is charged with what it cost beyond a plain step, in tokens that
plain steps make in that time, less the guesses that were right. The sum never falls below zero, so
what was gained long ago covers no loss of now; a sum of MOST_LOST ends the guessing (a cumulative
sum test: Page, "Continuous Inspection Schemes", Biometrika 1954). So a text that cannot be guessed
costs a fixed number of tokens, however long it is, and a text that can be guessed is given up only
after a run of bad luck. After a rest a probe begins: it ends after PROBE_LOST more, and not with
its first round, which may tell only how dear a round is.
"""

MOST_LOST = 12.0  # tokens
PROBE_LOST = 4.0  # tokens, at the beginning and after each rest
PROBE_ROUNDS = 2  # at least
FIRST_REST, LAST_REST = 64, 1024  # steps; each rest is twice as long until a probe has paid
REST_OF_LOST = 16  # steps of rest, at least, for each token that a probe lost


class Balance:
    """What one way of guessing has lost lately."""

    __slots__ = ("_lost", "_next_rest", "_rest", "_rounds")

    def __init__(self) -> None:
        self._lost = MOST_LOST - PROBE_LOST
        self._rounds = 0  # since the last rest
        self._rest = 0  # steps that are left of it
        self._next_rest = FIRST_REST

    @property
    def rests(self) -> bool:
        """Whether nothing is to be guessed now."""
        return self._rest > 0

    def pass_step(self) -> None:
        """Count a step of the rest, if there is one."""
        self._rest = max(0, self._rest - 1)

    def charge(self, tokens: float) -> None:
        """Add what a round lost; negative where it gained."""
        self._lost = max(0.0, self._lost + tokens)
        self._rounds += 1
        if self._lost == 0.0:
            self._next_rest = FIRST_REST
        elif self._lost >= MOST_LOST and self._rounds >= PROBE_ROUNDS:
            in_vain = REST_OF_LOST * (self._lost + PROBE_LOST - MOST_LOST)
            self._rest = min(max(self._next_rest, int(in_vain)), LAST_REST)
            self._next_rest = min(2 * self._next_rest, LAST_REST)
            self._lost = MOST_LOST - PROBE_LOST
            self._rounds = 0
