"""What the plan counts for the formats of answers is what bounds them."""

import pytest

from golden_files import DEMO_MODEL, needs_demo_model
from llamad.engine.bindings import TokenTrie
from llamad.memory.formats import (
    LEAST_CACHES_BYTES,
    MAX_KEPT,
    MOST_CACHES_BYTES,
    TRIE_TOKEN_BYTES,
    caches_bytes,
    format_caches,
    formats_bytes,
)
from llamad.service.answer_formats import constraint_texts
from llamad.text import load_tokenizer

MIB = 1 << 20


@needs_demo_model
def test_the_trie_of_a_vocabulary_takes_no_more_than_the_plan_counts() -> None:
    texts = list(constraint_texts(load_tokenizer(DEMO_MODEL)))
    trie = TokenTrie(texts)
    assert 0.7 * TRIE_TOKEN_BYTES * len(texts) < trie.n_bytes <= TRIE_TOKEN_BYTES * len(texts)
    assert formats_bytes(len(texts), None) == TRIE_TOKEN_BYTES * len(texts) + MOST_CACHES_BYTES


@pytest.mark.parametrize("memory", [None, 0, 64 * MIB, 500 * MIB, 1 << 30, 1 << 36])
@pytest.mark.parametrize("n_sequences", [1, 4, 256])
def test_all_caches_together_take_what_is_counted(memory: int | None, n_sequences: int) -> None:
    caches, total = format_caches(memory, n_sequences), caches_bytes(memory)
    masks = caches.masks * (n_sequences + MAX_KEPT)
    used = caches.grammars + masks + caches.states * n_sequences
    assert total - 2 * (n_sequences + MAX_KEPT) < used <= total
    assert LEAST_CACHES_BYTES <= total <= MOST_CACHES_BYTES
    assert 0 < caches.grammar <= caches.grammars


def test_they_shrink_with_the_memory() -> None:
    sizes = [caches_bytes(n * MIB) for n in (4096, 512, 256, 120)]
    assert sizes == [12 * MIB, 8 * MIB, 4 * MIB, 3 * MIB]
