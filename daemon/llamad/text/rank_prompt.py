"""A question and a text as the tokens that a model which ranks texts was trained on.

The file's ``tokenizer.chat_template.rerank`` says how, a text with {query} and {document} in it, as
Qwen3-Reranker's does; else they are a pair of XLM-RoBERTa: <s> question </s></s> text </s> (Conneau
et al., arXiv 1911.02116). A pair of BERT is not made: the second text of one has a type of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llamad.text.sentencepiece import UnigramTokenizer
from llamad.text.tokenizer import Tokenizer

TEMPLATE = "tokenizer.chat_template.rerank"
_QUERY, _DOCUMENT = "{query}", "{document}"


@dataclass(frozen=True, slots=True)
class RankTokens:
    """A pair's tokens. Between the first n_before and the last n_after of them is the text."""

    tokens: tuple[int, ...]
    n_before: int
    n_after: int


class RankPrompt:
    """How one model wants its pairs."""

    def __init__(self, tokenizer: Tokenizer, template: str | None) -> None:
        """template: None for a pair of XLM-RoBERTa."""
        self._tokenizer = tokenizer
        self._template = template

    @classmethod
    def of_model(cls, metadata: Mapping[str, Any], tokenizer: Tokenizer) -> "RankPrompt | None":
        """Return that of a file's metadata; None where nothing says how a pair is made."""
        template = metadata.get(TEMPLATE)
        if isinstance(template, str):
            query, document = template.find(_QUERY), template.find(_DOCUMENT)
            return cls(tokenizer, template) if 0 <= query < document else None
        ends = tokenizer.vocabulary.add_bos and tokenizer.vocabulary.add_eos
        return cls(tokenizer, None) if isinstance(tokenizer, UnigramTokenizer) and ends else None

    def encode(self, query: str, document: str) -> RankTokens:
        """Return a pair's tokens. Raises LlamadError INVALID for a lone surrogate."""
        if self._template is None:
            end = self._tokenizer.vocabulary.eos_id
            assert end is not None
            before = [*self._tokenizer.encode(query), end]
            text = self._tokenizer.encode(document, add_bos=False)
            return RankTokens((*before, *text, end), len(before), 1)
        head, _, rest = self._template.partition(_QUERY)
        middle, _, tail = rest.partition(_DOCUMENT)
        split = self._tokenizer.special.split
        parts: list[str | int] = [*split(head, True), query, *split(middle, True)]
        after = [*split(tail, True)]
        whole = self._encode([*parts, document, *after])
        return RankTokens(whole, len(self._encode(parts)), len(self._encode(after)))

    def _encode(self, parts: Sequence[str | int]) -> tuple[int, ...]:
        """Return the tokens of text and special tokens; neighbouring texts are one."""
        joined: list[str | int] = []
        for part in parts:
            if isinstance(part, str) and joined and isinstance(joined[-1], str):
                joined[-1] += part
            else:
                joined.append(part)
        return tuple(self._tokenizer.encode_parts(joined))
