"""What may be empty in a grammar, and which rules call themselves before they take a byte."""

from collections.abc import Iterator

from llamad.errors import ErrorKind, LlamadError
from llamad.sampling.constraint.conditions import Condition, all_of, any_of, holding
from llamad.sampling.constraint.expression import (
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
)


def invalid(message: str) -> LlamadError:
    """Return the error for a grammar that is refused."""
    return LlamadError(ErrorKind.INVALID, "INVALID_GRAMMAR", message)


def is_nullable(part: Expression, nullable: set[str]) -> bool:
    """Whether a part may be empty. nullable: the rules that may be."""
    match part:
        case Bytes() | Literal() | Until() | Text():
            return False
        case Sequence(parts):
            return all(is_nullable(p, nullable) for p in parts)
        case Choice(parts):
            return any(is_nullable(p, nullable) for p in parts)
        case Repeat(inner, least, most):
            return least == 0 or most == 0 or is_nullable(inner, nullable)
        case Call(rule):
            return rule in nullable
        case AnyOrder(required=required, least=least):
            return not required and least == 0
        case Machine(ends=ends):
            return 0 in ends
    raise TypeError(part)


def nullable_rules(grammar: Grammar) -> set[str]:
    """Return the rules that may be empty."""
    return holding({name: _may_be_empty(part) for name, part in grammar.rules.items()})


def _may_be_empty(part: Expression) -> Condition:
    """Return under which rules, if they may be empty, the part may."""
    match part:
        case Sequence(parts):
            return all_of(map(_may_be_empty, parts))
        case Choice(parts):
            return any_of(map(_may_be_empty, parts))
        case Repeat(inner, least, most):
            return True if least == 0 or most == 0 else _may_be_empty(inner)
        case Call(rule):
            return rule
    return is_nullable(part, set())


def _first_calls(part: Expression, nullable: set[str]) -> Iterator[str]:
    """Return the rules that a part may call before it takes a byte."""
    match part:
        case Sequence(parts):
            for p in parts:
                yield from _first_calls(p, nullable)
                if not is_nullable(p, nullable):
                    return
        case Choice(parts):
            for p in parts:
                yield from _first_calls(p, nullable)
        case Repeat(inner):
            yield from _first_calls(inner, nullable)
        case AnyOrder(members=members, rest=rest):
            for p in (*members, *([] if rest is None else [rest])):
                yield from _first_calls(p, nullable)
        case Machine(edges=edges):
            for p, _ in edges[0]:
                yield from _first_calls(p, nullable)
        case Call(rule):
            yield rule


def check_left_recursion(grammar: Grammar, nullable: set[str]) -> None:
    """Raise INVALID_GRAMMAR for a rule that calls itself first, or one that is not defined."""
    calls = {name: list(_first_calls(part, nullable)) for name, part in grammar.rules.items()}
    done: set[str] = set()
    for name in grammar.rules:
        path: dict[str, Iterator[str]] = {}
        pending = [name]
        while pending:
            rule = pending[-1]
            if rule not in path:
                if rule in done:
                    pending.pop()
                    continue
                if rule not in calls:
                    raise invalid(f"rule {rule!r} is called, but nowhere defined")
                path[rule] = iter(calls[rule])
            following = next(path[rule], None)
            if following is None:
                done.add(rule)
                del path[rule]
                pending.pop()
            elif following in path:
                raise invalid(f"rule {following!r} calls itself before it takes any text")
            else:
                pending.append(following)
