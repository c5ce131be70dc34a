"""Which of some names hold, where each holds under a condition on the others.

The least solution of conditions without a negation, in time linear in their size: each part counts
what it still misses (Dowling and Gallier, "Linear-time algorithms for testing the satisfiability of
propositional Horn formulae", 1984).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class AtLeast:
    """So many of the parts hold."""

    count: int
    parts: "tuple[Condition, ...]"


Condition: TypeAlias = bool | str | AtLeast  # a text: the condition of that name


def all_of(parts: Iterable[Condition]) -> Condition:
    """Return the condition that all parts hold."""
    open_parts = [part for part in parts if part is not True]
    return at_least(len(open_parts), open_parts)


def any_of(parts: Iterable[Condition]) -> Condition:
    """Return the condition that one of the parts holds."""
    return at_least(1, parts)


def at_least(count: int, parts: Iterable[Condition]) -> Condition:
    """Return the condition that so many of the parts hold, without parts that are decided."""
    open_parts: list[Condition] = []
    for part in parts:
        if part is True:
            count -= 1
        elif part is not False:
            open_parts.append(part)
    if count <= 0:
        return True
    if count > len(open_parts):
        return False
    return open_parts[0] if len(open_parts) == 1 else AtLeast(count, tuple(open_parts))


@dataclass(slots=True)
class _Counter:
    missing: int
    above: "_Counter | None"  # whose part it is; None: it is the condition of ``name``
    name: str = ""


def holding(conditions: Mapping[str, Condition]) -> set[str]:
    """Return the names whose conditions hold; a name without a condition does not."""
    waiting: dict[str, list[_Counter]] = {}
    ready: list[_Counter] = []  # once for each part that holds

    def place(condition: Condition, above: _Counter) -> None:
        match condition:
            case True:
                ready.append(above)
            case str():
                waiting.setdefault(condition, []).append(above)
            case AtLeast(count, parts):
                counter = _Counter(count, above)
                for part in parts:
                    place(part, counter)

    for name, condition in conditions.items():
        place(condition, _Counter(1, None, name))
    holds: set[str] = set()
    while ready:
        counter = ready.pop()
        counter.missing -= 1
        if counter.missing != 0:
            continue
        if counter.above is not None:
            ready.append(counter.above)
        else:
            holds.add(counter.name)
            ready += waiting.pop(counter.name, [])
    return holds
