"""Write the fuzzers' seeds: files into corpus/, grammars into grammars/.

corpus/: bad files, good ones, a tiny model, keys of each family. grammars/: automata with a
vocabulary and a walk, in the format that fuzz_constraint.c describes. Run from anywhere: ``python
native/fuzz/make_corpus.py``. The seeds are committed; run it again when the cases in
tests/engine/bad_gguf.py or tests/family_models.py change.
"""

import sys
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests"))

sys.path.insert(0, str(HERE.parents[1] / "daemon"))

from engine.bad_gguf import BAD_FILES, GOOD_FILES  # noqa: E402
from engine.gguf_bytes import model  # noqa: E402
from family_models import FAMILY_MODELS  # noqa: E402
from llamad.sampling.constraint.automaton import EDGE, NO_LIMIT, compile_grammar  # noqa: E402
from llamad.sampling.constraint.expression import Grammar, Text, literal  # noqa: E402
from llamad.sampling.constraint.gbnf import parse_gbnf  # noqa: E402
from tiny_gguf import encode_gguf, metadata_of  # noqa: E402

TEXTS = (
    b"",
    b"a",
    b"b",
    b"ab",
    b"aab",
    b"(",
    b")",
    b"()",
    b"1",
    b"12",
    b",",
    b'"',
    b"\xc3",
    b"\xa9",
)
GRAMMARS = {
    "letters": 'root ::= "a" "b"*',
    "choice": 'root ::= "aab" | "ab" | "a" [^"]',
    "brackets": 'root ::= "(" root? ")" root?',
    "list": 'root ::= item ("," item)*\nitem ::= "1" | "12" | "(" root ")"',
    "counted": 'root ::= ("a" | "ab" | "(" ")"){3,12}',
    "nested": 'root ::= (pair ","){2,9}\npair ::= ("1" | "(" pair ")"){1,20}',
    "text": 'root ::= ["] [^"]* ["]',
}


def seeds() -> dict[str, bytes]:
    """Return the corpus by file name."""
    result = {f"bad-{bad.name}": bad.content for bad in BAD_FILES}
    result |= {f"good-{name}": content for name, content in GOOD_FILES.items()}
    guessing = replace(FAMILY_MODELS["qwen35"], n_guess_layers=1)
    for name, spec in (*FAMILY_MODELS.items(), ("qwen35-guessing", guessing)):
        keys = {key: value for key, value in metadata_of(spec).items() if "tokenizer" not in key}
        result[f"family-{name}"] = encode_gguf(keys, [])
    return result | {"model": model()}


def _byte(number: int) -> int:
    """Return a number as a grammar's seed holds it."""
    if number == NO_LIMIT:
        return 255
    if number >= 255:
        raise ValueError(f"{number} is no byte: the grammar is too large for a seed")
    return number


def grammar_seeds() -> dict[str, bytes]:
    """Return automata, each with the texts of a vocabulary and tokens to take, by file name."""
    result = {}
    grammars = {name: parse_gbnf(text) for name, text in GRAMMARS.items()}
    marks = ((TEXTS[1], literal("b")), (b"{", literal("}")))
    grammars["text-with-marks"] = Grammar({"root": Text(marks)}, "root")
    for name, grammar in grammars.items():
        automaton = compile_grammar(grammar)
        edges = list(EDGE.iter_unpack(automaton.edges))
        first = automaton.first_edge
        seed = bytearray(map(_byte, (automaton.n_states, automaton.start, len(edges), len(TEXTS))))
        for state, bound in enumerate(automaton.bounds):
            seed += bytes((_byte(first[state + 1] - first[state]), _byte(bound)))
        for kind, low, high, target, value in edges:
            seed += bytes((kind, low, high, _byte(target), _byte(value)))
        for token in TEXTS:
            seed += bytes((len(token),)) + token
        result[name] = bytes(seed) + bytes((0, *range(1, len(TEXTS)), 5, 5, 8, 6, 6))
    return result


def main() -> None:
    """Replace the contents of corpus/ and grammars/."""
    for folder, contents in (("corpus", seeds()), ("grammars", grammar_seeds())):
        (HERE / folder).mkdir(exist_ok=True)
        for old in (HERE / folder).iterdir():
            old.unlink()
        for name, content in contents.items():
            (HERE / folder / name).write_bytes(content)


if __name__ == "__main__":
    main()
