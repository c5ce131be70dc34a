"""What of a grammar can be said to the end; no answer may run into the rest."""

from collections.abc import Collection
from dataclasses import replace

from llamad.sampling.constraint.conditions import Condition, all_of, any_of, at_least, holding
from llamad.sampling.constraint.expression import (
    NEVER,
    NOTHING,
    AnyOrder,
    Bytes,
    Call,
    Choice,
    Expression,
    Grammar,
    Literal,
    Machine,
    Repeat,
    Sequence,
    Text,
    Until,
    choice,
    is_never,
)


def without_dead_ends(grammar: Grammar, whole: Collection[str] = ()) -> Grammar | None:
    """Return the grammar without parts that no text fits; None when no text fits at all.

    whole: rules that have no such part.
    """
    known = set(whole)
    unsure = {name: part for name, part in grammar.rules.items() if name not in known}
    productive = known | holding({name: _fits(part, known) for name, part in unsure.items()})
    if grammar.start not in productive:
        return None
    rules = {name: pruned(part, productive) for name, part in unsure.items() if name in productive}
    return Grammar({**{name: grammar.rules[name] for name in whole}, **rules}, grammar.start)


def _fits(part: Expression, known: set[str]) -> Condition:
    """Return under which rules a text fits the part. known: rules that some text fits."""
    match part:
        case Call(rule):
            return True if rule in known else rule
        case Literal() | Until() | Text() | Machine():
            return True
        case Bytes(ranges):
            return bool(ranges)
        case Sequence(parts):
            return all_of([_fits(p, known) for p in parts])
        case Choice(parts):
            return any_of([_fits(p, known) for p in parts])
        case Repeat(inner, least, most):
            return True if least == 0 else False if most == 0 else _fits(inner, known)
        case AnyOrder(members=members, required=required, rest=rest, least=least):
            fit = [_fits(member, known) for member in members]
            must = [condition for i, condition in enumerate(fit) if i in required]
            may = [condition for i, condition in enumerate(fit) if i not in required]
            others = False if rest is None else _fits(rest, known)
            return all_of([*must, any_of([others, at_least(least, may)])])
    raise TypeError(part)


def pruned(part: Expression, productive: Collection[str]) -> Expression:
    """Return what of a part some text fits; NEVER: none does. productive: such rules."""
    match part:
        case Call(rule):
            return part if rule in productive else NEVER
        case Literal() | Until() | Machine():
            return part
        case Bytes(ranges):
            return part if ranges else NEVER
        case Sequence(parts):
            kept = tuple([pruned(p, productive) for p in parts])
            return NEVER if any(map(is_never, kept)) else Sequence(kept)
        case Choice(parts):
            return choice([pruned(p, productive) for p in parts])
        case Repeat(inner, least, most):
            inner = pruned(inner, productive)
            if is_never(inner) or most == 0:
                return NOTHING if least == 0 else NEVER
            return Repeat(inner, least, most)
        case AnyOrder():
            return _pruned_members(part, productive)
        case Text(marks, first, once):
            behind = [(mark, pruned(inner, productive)) for mark, inner in (*marks, *first)]
            return Text(tuple(behind[: len(marks)]), tuple(behind[len(marks) :]), once)
    raise TypeError(part)


def _pruned_members(part: AnyOrder, productive: Collection[str]) -> Expression:
    members: list[Expression] = []
    required: set[int] = set()
    for i, member in enumerate(part.members):
        kept = pruned(member, productive)
        if is_never(kept):
            if i in part.required:
                return NEVER
            continue
        if i in part.required:
            required.add(len(members))
        members.append(kept)
    rest = None if part.rest is None else pruned(part.rest, productive)
    rest = None if rest is None or is_never(rest) else rest
    if rest is None and part.least > len(members) - len(required):
        return NEVER
    if not members and rest is None:
        return NOTHING
    return replace(part, members=tuple(members), required=frozenset(required), rest=rest)
