"""What the plan counts for constrained answers is what they take."""

import re
from pathlib import Path

from golden_files import DEMO_MODEL, needs_demo_model
from llamad.engine.bindings import TokenTrie
from llamad.memory.plan import (
    GRAMMARS_BYTES,
    MASKS_BYTES,
    MAX_GRAMMARS,
    TRIE_TOKEN_BYTES,
    formats_bytes,
)
from llamad.service.answer_formats import constraint_texts
from llamad.text import load_tokenizer

ROOT = Path(__file__).parents[3]


@needs_demo_model
def test_the_trie_of_a_vocabulary_takes_no_more_than_the_plan_counts() -> None:
    texts = list(constraint_texts(load_tokenizer(DEMO_MODEL)))
    trie = TokenTrie(texts)
    assert 0.7 * TRIE_TOKEN_BYTES * len(texts) < trie.n_bytes <= TRIE_TOKEN_BYTES * len(texts)
    kept = GRAMMARS_BYTES + MAX_GRAMMARS * MASKS_BYTES
    assert formats_bytes(len(texts)) == TRIE_TOKEN_BYTES * len(texts) + kept


def test_the_engine_keeps_as_many_bytes_of_masks_as_the_plan_counts() -> None:
    source = (ROOT / "native" / "src" / "constraint" / "local_mask.c").read_text()
    match = re.search(r"MAX_KEPT_BYTES = (\d+) << (\d+),", source)
    assert match is not None
    assert int(match[1]) << int(match[2]) == MASKS_BYTES
