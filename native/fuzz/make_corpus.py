"""Write the fuzzers' seeds: files into corpus/ and adapters/, grammars into grammars/.

corpus/: bad files, good ones, a tiny model, keys of each family. adapters/: good and bad ones for
the model of native/tests/tiny_model.h. grammars/: automata with a vocabulary and a walk, in the
format that fuzz_constraint.c describes. Run from anywhere: ``python
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
from tiny_adapter import TinyAdapter, adapter_metadata, adapter_tensors  # noqa: E402
from tiny_gguf import TinySpec, encode_gguf, metadata_of  # noqa: E402

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


def adapter_seeds() -> dict[str, bytes]:
    """Return adapters by file name: one of each type, and of each what a hostile one lies about."""
    spec = TinySpec(n_layers=2, dim=64, n_heads=4, n_kv_heads=2, hidden_dim=96)
    result = {}
    for type_name in ("F32", "F16", "BF16", "Q8_0"):
        adapter = TinyAdapter(rank=3, type_name=type_name, targets=("attn_q", "ffn_down"))
        result[f"good-{type_name}"] = encode_gguf(
            adapter_metadata(spec, adapter), adapter_tensors(spec, adapter)[:4]
        )
    keys, (a, b) = adapter_metadata(spec, TinyAdapter()), adapter_tensors(spec, TinyAdapter())[:2]
    broken = replace(b, data=b"\0\0\xc0\x7f" + b.data[4:])
    huge = replace(b, data=b"\xff\xff\x7f\x7f" * (len(b.data) // 4))
    norms = [replace(t, name=t.name.replace("attn_q", "attn_norm")) for t in (a, b)]
    for name, changes, tensors in (
        ("alone", {}, [a]),
        ("twice", {}, [a, a, b]),
        ("short", {}, [a, replace(b, shape=(b.shape[0], 3))]),
        ("wide", {}, [replace(a, shape=(2, 128)), b]),
        ("ranked", {}, [replace(a, shape=(1 << 31, 64)), replace(b, shape=(64, 1 << 31))]),
        ("cube", {}, [replace(a, shape=(1, *a.shape)), b]),
        ("norm", {}, norms),
        ("unknown", {}, [replace(a, name="blk.7.attn_q.weight.lora_a"), b]),
        ("unnamed", {}, [replace(a, name=".lora_a"), replace(b, name=".lora_b")]),
        ("nan", {}, [a, broken]),
        ("huge", {}, [a, huge]),
        ("alpha-nan", {"adapter.lora.alpha": float("nan")}, [a, b]),
        ("alpha-huge", {"adapter.lora.alpha": 3e38}, [a, b]),
        ("no-lora", {"adapter.type": "control_vector"}, [a, b]),
        ("a-model", {"general.type": "model"}, [a, b]),
        ("other", {"general.architecture": "qwen3"}, [a, b]),
        ("empty", {}, []),
    ):
        result[f"bad-{name}"] = encode_gguf(keys | changes, tensors)
    return result


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
    """Replace the contents of corpus/, adapters/ and grammars/."""
    for folder, contents in (
        ("corpus", seeds()),
        ("adapters", adapter_seeds()),
        ("grammars", grammar_seeds()),
    ):
        (HERE / folder).mkdir(exist_ok=True)
        for old in (HERE / folder).iterdir():
            old.unlink()
        for name, content in contents.items():
            (HERE / folder / name).write_bytes(content)


if __name__ == "__main__":
    main()
