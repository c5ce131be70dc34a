"""The golden files, ``tests/golden``, and the demo model that some of them speak of.

Owns their paths and formats. Where they come from and under which licence: tests/golden/README.md.
They are part of the project, so no test may skip for want of one. The demo model is fetched by
``make test``; a test that needs it skips without it, for that reason and no other.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden"
DEMO_FIGURES = GOLDEN / "smollm2-135m-q4_1.json"
PASSAGE = GOLDEN / "passage.txt"
SENTENCEPIECE_MODEL = GOLDEN / "vocabulary-llama-spm.model"
DEMO_MODEL = Path(
    os.environ.get("LLAMAD_DEMO_MODEL", ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf")
)
NO_DEMO_MODEL = f"no demo model at {DEMO_MODEL}: make test fetches it"

needs_demo_model = pytest.mark.skipif(not DEMO_MODEL.exists(), reason=NO_DEMO_MODEL)


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A part of a vocabulary. ids: of each token in the whole one, ascending."""

    ids: list[int]
    metadata: dict[str, object]

    def original(self, tokens: Sequence[int]) -> list[int]:
        """Return the ids that the tokens have in the whole vocabulary."""
        return [self.ids[token] for token in tokens]


def excerpt(name: str) -> Excerpt:
    """Return what the cases need of a vocabulary, such as ``gpt-2``."""
    content = json.loads((GOLDEN / f"vocabulary-{name}.json").read_text(encoding="ascii"))
    return Excerpt(content.pop("ids"), content)


def cases(name: str) -> list[tuple[str, list[int]]]:
    """Return (text, ids in the whole vocabulary), from the reference implementation."""
    own = GOLDEN / f"tokenizer-cases-{name}.inp"
    texts = own if own.exists() else GOLDEN / "tokenizer-cases.inp"
    return read_cases(texts, GOLDEN / f"tokenizer-cases-{name}.out")


def read_cases(texts: Path, ids: Path) -> list[tuple[str, list[int]]]:
    """Return (text, ids) of a pair of files as llama.cpp has them, ``.inp`` and ``.out``."""
    separator = "\n__ggml_vocab_test__\n"  # behind the last text, too, in most files
    cases = texts.read_bytes().decode().removesuffix(separator).split(separator)
    lines = ids.read_text(encoding="ascii").splitlines()
    return [
        (text, [int(token) for token in line.split()])
        for text, line in zip(cases, lines, strict=True)
    ]
