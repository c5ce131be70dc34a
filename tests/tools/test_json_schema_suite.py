"""The JSON-Schema-Test-Suite, draft 2020-12: each value of each schema that is not refused by name.

Formats are forms that a text must have (string_forms.py), as in the suite's ``optional/format``,
and narrower than the standard's: no wrong text is taken, and not each right one. What says that
they are annotations only (``format.json``) is left out.

Needs ``build/json-schema-tests``, which ``make peer`` fetches.
"""

import json
from collections import Counter
from collections.abc import Iterator

import pytest

from json_schema_tests import FOLDER, MISSING
from llamad.engine.bindings import EngineError
from llamad.engine.bindings.constraint import Constraint, Grammar, TokenTrie
from llamad.errors import LlamadError
from llamad.sampling.constraint.automaton import compile_grammar
from llamad.sampling.constraint.json_schema import parse_json_schema

if not FOLDER.exists():
    pytest.skip(MISSING, allow_module_level=True)

END = 256  # of a vocabulary of one token for each byte
LEAST_SUPPORTED = 230  # schemas; of those that the suite has today


def spellings(value: object) -> set[bytes]:
    """Return how Python's json writes a value: in one line, short, and in lines."""
    texts = (
        json.dumps(value),
        json.dumps(value, ensure_ascii=False, separators=(",", ":")),
        json.dumps(value, indent=1),
    )
    return {text.encode("utf-8", "surrogatepass") for text in texts}


def accepts(grammar: Grammar, text: bytes) -> bool:
    """Whether the grammar takes the whole text."""
    with Constraint(grammar, [END]) as constraint:
        try:
            for byte in text:
                constraint.accept(byte)
        except EngineError as error:
            if "not in the grammar" in str(error):
                return False
            raise
        return constraint.accepts


def wrong_answers(
    trie: TokenTrie, schema: object, values: list[dict[str, object]], *, narrower: bool
) -> Iterator[str]:
    """Return the values of a schema that are taken and must not be, or the other way round.

    narrower: a value that is not taken is not wrong.
    """
    try:
        parsed = parse_json_schema(schema)
    except LlamadError as error:
        if not error.message.endswith("no value fits"):
            raise
        yield from (str(value["description"]) for value in values if value["valid"])
        return
    with Grammar(trie, compile_grammar(parsed)) as grammar:
        for value in values:
            for text in spellings(value["data"]):
                taken = accepts(grammar, text)
                if taken != value["valid"] and (taken or not narrower):
                    yield f"{value['description']}: {text.decode()[:80]}"


def test_no_value_of_a_supported_schema_is_judged_wrong(
    capsys: pytest.CaptureFixture[str],
) -> None:
    counts: Counter[str] = Counter()
    wrong = []
    with TokenTrie([*(bytes([byte]) for byte in range(256)), b""]) as trie:
        for path in sorted((FOLDER / "draft2020-12").rglob("*.json")):
            if path.name == "format.json":
                continue
            narrower = path.parent.name == "format"
            for case in json.loads(path.read_text()):
                try:
                    wrong += [
                        f"{path.name}: {case['description']}: {answer}"
                        for answer in wrong_answers(
                            trie, case["schema"], case["tests"], narrower=narrower
                        )
                    ]
                    counts["supported"] += 1
                except LlamadError as error:
                    counts[f"refused, {error.reason}"] += 1
    with capsys.disabled():
        print(f"\nJSON-Schema-Test-Suite: {dict(counts)} schemas, {len(wrong)} values wrong")
    assert wrong == []
    assert counts["supported"] >= LEAST_SUPPORTED
    assert set(counts) == {"supported", "refused, INVALID_SCHEMA"}
