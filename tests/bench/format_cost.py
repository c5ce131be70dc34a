"""What a format of answers costs: compiling it, and the mask of each token.

    python tests/bench/format_cost.py VOCABULARY.gguf

For requests of the kinds people send: the processor time to compile, and the time of the masks
along random answers at the first and at the second time, in microseconds. Divide by the time of a
decode step for the share (``llamad bench``). Run it on an idle machine.
"""

import json
import random
import statistics
import sys
import time
from collections.abc import Callable

from llamad._engine import ffi, lib

from llamad.engine.bindings.constraint import Constraint, Grammar, TokenTrie
from llamad.engine.bindings.status import check
from llamad.jobs.request import Tool
from llamad.sampling.constraint.automaton import compile_grammar
from llamad.sampling.constraint.expression import Grammar as Rules
from llamad.sampling.constraint.json_schema import any_json, parse_json_schema
from llamad.service.tool_grammar import ToolRules, answer_with_tools
from llamad.text import load_tokenizer
from llamad.text.tools.formats import HERMES

TOKENS = 60  # of an answer
ANSWERS = 20


def tool(i: int) -> dict[str, object]:
    """Return the arguments of a tool, as a house has them."""
    return {
        "type": "object",
        "properties": {
            "name": {"const": f"tool_{i}"},
            "entity_id": {"type": "string", "pattern": r"^(light|switch|climate)\.[a-z0-9_]+$"},
            "brightness": {"type": "integer", "minimum": 0, "maximum": 255},
            "temperature": {"type": "number", "minimum": 5, "maximum": 30},
            "mode": {"enum": ["heat", "cool", "auto", "off"]},
            "rooms": {"type": "array", "items": {"type": "string"}, "maxItems": 5},
        },
        "required": ["name", "entity_id"],
        "additionalProperties": False,
    }


def unlike(i: int) -> dict[str, object]:
    """Return the arguments of a tool that have nothing alike with those of another number."""
    return {
        "type": "object",
        "properties": {
            f"entity_{i}": {"type": "string", "pattern": rf"^(light|switch)\.room{i}_[a-z0-9_]+$"},
            f"brightness_{i}": {"type": "integer", "minimum": i, "maximum": 255 + i},
            f"temperature_{i}": {"type": "number", "minimum": 5 + i / 10, "maximum": 30},
            f"mode_{i}": {"enum": [f"heat{i}", "cool", "auto", "off"]},
            f"rooms_{i}": {"type": "array", "items": {"type": "string", "maxLength": 20 + i}},
        },
        "required": [f"entity_{i}"],
    }


def calls(n: int, arguments: Callable[[int], dict[str, object]] = tool) -> Rules:
    """Return the grammar of an answer that must call one of so many tools."""
    tools = tuple(Tool(f"tool_{i}", "", json.dumps(arguments(i))) for i in range(n))
    return answer_with_tools(ToolRules(tools, required=True), HERMES, [])


REQUESTS: dict[str, Callable[[], Rules]] = {
    "any JSON": lambda: any_json(object_only=False),
    "one object": lambda: parse_json_schema(tool(0)),
    "one of 100 objects": lambda: parse_json_schema({"anyOf": [tool(i) for i in range(100)]}),
    "25 tools": lambda: calls(25),
    "100 tools": lambda: calls(100),
    "100 unlike tools": lambda: calls(100, unlike),
}


def main() -> None:
    """Print a line for each request."""
    tokenizer = load_tokenizer(sys.argv[1])
    began = time.perf_counter()
    trie = TokenTrie(tokenizer.piece(token) for token in range(tokenizer.vocab_size))
    print(f"{tokenizer.vocab_size} tokens, their trie {time.perf_counter() - began:.2f} s")
    for name, made in REQUESTS.items():
        began = time.process_time()
        automaton = compile_grammar(made())
        grammar = Grammar(trie, automaton)
        compiled = time.process_time() - began
        print(f"{name}: compiled in {1000 * compiled:.0f} ms, {automaton.n_states} states", end="")
        for turn in ("first", "again"):
            micros = [m for seed in range(ANSWERS) for m in masks(grammar, seed)]
            p99 = statistics.quantiles(micros, n=100)[-1]
            print(f"; {turn} {statistics.median(micros):.0f} us, p99 {p99:.0f}", end="")
        print()


def masks(grammar: Grammar, seed: int) -> list[float]:
    """Return the microseconds of each mask along an answer."""
    rng = random.Random(seed)
    micros = []
    flags = ffi.new("uint8_t[]", grammar.vocab_size)
    with Constraint(grammar, [0]) as constraint:
        for _ in range(TOKENS):
            began = time.perf_counter()
            check(lib.lld_constraint_allowed(constraint._c, flags))
            micros.append(1e6 * (time.perf_counter() - began))
            allowed = [i for i, flag in enumerate(ffi.buffer(flags)[:]) if flag and i]
            if not allowed:
                break
            constraint.accept(rng.choice(allowed))
    return micros


if __name__ == "__main__":
    main()
