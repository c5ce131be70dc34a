"""Steps of a test on one machine: each builds on the one before, so the first failure ends it."""

import time
from collections.abc import Callable, Iterable

from e2e.service import Commands


def run_steps(name: str, steps: Iterable[Callable[[], None]], machine: Commands) -> None:
    """Run the steps in order and print each with its time; on failure, show the unit's journal."""
    for step in steps:
        title = step.__name__.strip("_").replace("_", " ")
        began = time.monotonic()
        try:
            step()
        except BaseException:
            print(f"{name}: {title}: FAILED; the journal of the unit:")
            print(machine.run("journalctl", "--unit=llamad", "-n60", check=False).stdout)
            raise
        print(f"{name}: {title}: ok, {time.monotonic() - began:.1f} s", flush=True)
