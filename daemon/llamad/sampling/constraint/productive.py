"""What of a grammar can be said to the end; no answer may run into the rest."""

from collections.abc import Collection
from dataclasses import replace

from llamad.sampling.constraint.expression import (
    NEVER,
    NOTHING,
    AnyOrder,
    Bytes,
    Call,
    Choice,
    Expression,
    Grammar,
    Repeat,
    Sequence,
    Text,
    Until,
    choice,
)


def without_dead_ends(grammar: Grammar, whole: Collection[str] = ()) -> Grammar | None:
    """Return the grammar without parts that no text fits; None when no text fits at all.

    whole: rules that have no such part.
    """
    productive = set(whole)
    unsure = {name: part for name, part in grammar.rules.items() if name not in productive}
    n = -1
    while n != len(productive):
        n = len(productive)
        for name, part in unsure.items():
            if name not in productive and _pruned(part, productive) != NEVER:
                productive.add(name)
    if grammar.start not in productive:
        return None
    rules = {name: _pruned(part, productive) for name, part in unsure.items() if name in productive}
    return Grammar({**{name: grammar.rules[name] for name in whole}, **rules}, grammar.start)


def _pruned(part: Expression, productive: set[str]) -> Expression:
    match part:
        case Bytes(ranges):
            return part if ranges else NEVER
        case Until():
            return part
        case Text(marks, first, once):
            behind = [(mark, _pruned(inner, productive)) for mark, inner in (*marks, *first)]
            return Text(tuple(behind[: len(marks)]), tuple(behind[len(marks) :]), once)
        case Call(rule):
            return part if rule in productive else NEVER
        case Sequence(parts):
            pruned = tuple(_pruned(p, productive) for p in parts)
            return NEVER if NEVER in pruned else Sequence(pruned)
        case Choice(parts):
            return choice(_pruned(p, productive) for p in parts)
        case Repeat(inner, least, most):
            kept = _pruned(inner, productive)
            if kept == NEVER or most == 0:
                return NOTHING if least == 0 else NEVER
            return Repeat(kept, least, most)
        case AnyOrder():
            return _pruned_members(part, productive)
    raise TypeError(part)


def _pruned_members(part: AnyOrder, productive: set[str]) -> Expression:
    members: list[Expression] = []
    required: set[int] = set()
    for i, member in enumerate(part.members):
        kept = _pruned(member, productive)
        if kept == NEVER:
            if i in part.required:
                return NEVER
            continue
        if i in part.required:
            required.add(len(members))
        members.append(kept)
    rest = None if part.rest is None else _pruned(part.rest, productive)
    rest = None if rest == NEVER else rest
    if rest is None and part.least > len(members) - len(required):
        return NEVER
    if not members and rest is None:
        return NOTHING
    return replace(part, members=tuple(members), required=frozenset(required), rest=rest)
