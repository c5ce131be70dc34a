"""What each owner's jobs have taken of the engine lately: seconds of compute that fade with time.

A step's seconds are shared among its rows, and each row is charged to the owner of its job. What
was used counts half after HALF_LIFE_SECONDS, so the account tells of now, not of last week.
"""

from collections.abc import Mapping

HALF_LIFE_SECONDS = 600.0
FORGOTTEN_SECONDS = 1e-3  # below this an account is as good as none
MOST_GROWTH = 2.0**40  # of the weight of new seconds, before the accounts are written anew


class Shares:
    """The accounts of all owners, by name."""

    def __init__(self) -> None:
        # In seconds of compute at ``_since``: the accounts stay as they are, and what is added
        # weighs the more the later it comes.
        self._accounts: dict[str, float] = {}
        self._since = 0.0

    def used(self, owner: str, now: float) -> float:
        """Return what is left of an owner's seconds at ``now``, a monotonic time."""
        return self._accounts.get(owner, 0.0) / self._growth(now)

    def charge(self, rows: Mapping[str, int], seconds: float, now: float) -> None:
        """Share a step's seconds among owners, by their rows in it."""
        growth = self._growth(now)
        if growth > MOST_GROWTH or not self._accounts:
            self._begin_anew(growth, now)
            growth = 1.0
        total = sum(rows.values())
        for owner, n_rows in rows.items():
            before = self._accounts.get(owner, 0.0)
            self._accounts[owner] = before + growth * seconds * n_rows / total

    def _growth(self, now: float) -> float:
        return float(2.0 ** ((now - self._since) / HALF_LIFE_SECONDS))

    def _begin_anew(self, growth: float, now: float) -> None:
        left = {owner: account / growth for owner, account in self._accounts.items()}
        self._accounts = {o: seconds for o, seconds in left.items() if seconds > FORGOTTEN_SECONDS}
        self._since = now
