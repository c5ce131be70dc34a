"""Text in and out of a model: tokenizers, detokenizer, stop strings, chat templates.

Pure: neither C nor gRPC. Only ``load_tokenizer`` reaches for the engine's GGUF reader, when
called.
"""

from os import PathLike

from llamad.printable import quoted
from llamad.text.bpe import BpeTokenizer
from llamad.text.chat_template import ChatTemplate
from llamad.text.detokenizer import Detokenizer
from llamad.text.sentencepiece import SentencePieceTokenizer, UnigramTokenizer
from llamad.text.spaced_bpe import SpacedBpeTokenizer
from llamad.text.stop_strings import StopStrings
from llamad.text.tokenizer import Tokenizer
from llamad.text.vocabulary import Metadata, corrupt, text_value, unsupported
from llamad.text.wordpiece import WordPieceTokenizer

__all__ = [
    "ChatTemplate",
    "Detokenizer",
    "StopStrings",
    "Tokenizer",
    "load_tokenizer",
    "tokenizer_from_metadata",
]

_MODELS: dict[
    str,
    type[BpeTokenizer | SentencePieceTokenizer | SpacedBpeTokenizer | WordPieceTokenizer],
] = {
    "bert": WordPieceTokenizer,
    "gemma4": SpacedBpeTokenizer,
    "gpt2": BpeTokenizer,
    "llama": SentencePieceTokenizer,
    "t5": UnigramTokenizer,
}


def tokenizer_from_metadata(metadata: Metadata) -> Tokenizer:
    """Return the tokenizer that GGUF metadata describes.

    Raises LlamadError: STATE, TOKENIZER_UNSUPPORTED, for a tokenizer model or pre-tokenizer that is
    not implemented, by name; CORRUPT, TOKENIZER_CORRUPT, for metadata that is broken, with the key.
    """
    model = text_value(metadata, "model")
    if model is None:
        raise corrupt("model", "is missing: the file has no vocabulary")
    tokenizer = _MODELS.get(model)
    if tokenizer is None:
        known = ", ".join(sorted(_MODELS))
        raise unsupported(
            f"tokenizer {quoted(model)} (tokenizer.ggml.model) is not supported, only {known}"
        )
    return tokenizer(metadata)


def load_tokenizer(path: str | PathLike[str]) -> Tokenizer:
    """Return the tokenizer of a GGUF file, with tensors or without.

    Raises LlamadError as ``tokenizer_from_metadata`` does, or for a file that is no GGUF.
    """
    from llamad.engine.bindings import read_metadata

    return tokenizer_from_metadata(read_metadata(path))
