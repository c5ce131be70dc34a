"""Cut the vocabularies that the tokenizer cases use down to the tokens that can matter for them.

    PYTHONPATH=tests:daemon .venv/bin/python tests/golden/make_excerpts.py FOLDER

FOLDER holds ``ggml-vocab-NAME.gguf`` of llama.cpp (its folder ``models``), and for ``llama-spm``
LLaMA 2's ``tokenizer.model``. Further arguments are the names to write, else all. A tokenizer only
ever looks up substrings of the text: with the tokens that are substrings of the texts, the single
bytes and all that are no text, every text gets the tokens that the whole vocabulary gives it; this
program ends by checking that. An excerpt lists the ids that its tokens have in the whole vocabulary
as ``ids``.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path

from sentencepiece import SentencePieceProcessor

from golden_files import GOLDEN, PASSAGE, SENTENCEPIECE_MODEL, Excerpt, cases, excerpt
from llamad.engine.bindings import read_metadata
from llamad.text import tokenizer_from_metadata
from llamad.text.bpe import spelled
from llamad.text.vocabulary import TokenType

KEY = "tokenizer.ggml."
BPE, SENTENCEPIECE = ("gpt-2", "llama-bpe", "qwen35", "falcon"), "llama-spm"


def texts(name: str) -> list[str]:
    """Return every text that the tests encode with a vocabulary."""
    found = [text for text, _ in cases(name)]
    return [*found, PASSAGE.read_text(encoding="utf-8")] if name == SENTENCEPIECE else found


def surface(name: str) -> str:
    """Return the texts as the tokens of a vocabulary spell them, with a NUL between two."""
    if name in BPE:
        return "\0".join(spelled(text.encode()) for text in texts(name))
    return "\0".join("▁" + text.replace(" ", "▁") for text in texts(name))


def kept_ids(name: str, tokens: list[str], types: list[int]) -> list[int]:
    """Return the ids that can matter: substrings of the texts, single bytes, and no text at all."""
    text, n_byte = surface(name), 1 if name in BPE else 0  # characters that spell a byte
    return [
        i
        for i, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind != TokenType.NORMAL or len(token) == n_byte or token in text
    ]


def cut_metadata(name: str, whole: Mapping[str, object]) -> Excerpt:
    """Return the ``tokenizer.ggml.*`` keys with the tokens of an excerpt alone."""
    metadata = {key: value for key, value in whole.items() if key.startswith(KEY)}
    tokens, types = metadata[KEY + "tokens"], metadata[KEY + "token_type"]
    assert isinstance(tokens, list)
    assert isinstance(types, list)
    ids = kept_ids(name, tokens, types)
    for key, value in metadata.items():
        if key == KEY + "merges" and isinstance(value, list):
            kept = {tokens[i] for i in ids}
            parts = [merge.split(" ") for merge in value]
            inside = [set(part) <= kept and "".join(part) in kept for part in parts]
            metadata[key] = [m for m, is_inside in zip(value, inside, strict=True) if is_inside]
        elif isinstance(value, list):
            metadata[key] = [value[i] for i in ids]
        elif key.endswith("_token_id"):
            metadata[key] = ids.index(value) if value in ids else -1
    return Excerpt(ids, metadata)


def fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (field number, the field's bytes with its key) of a message of length-prefixed fields.

    Of sentencepiece_model.proto: 1 is a piece, 2 the trainer's settings, 3 the normalizer's.
    """
    position = 0
    while position < len(data):
        start, number = position, data[position] >> 3
        assert data[position] & 7 == 2, "ModelProto has only messages"
        position, length, shift = position + 1, 0, 0
        while True:
            byte = data[position]
            length |= (byte & 127) << shift
            position, shift = position + 1, shift + 7
            if byte < 128:
                break
        position += length
        yield number, data[start:position]


def cut_model(data: bytes, ids: list[int]) -> bytes:
    """Return a serialized sentencepiece model with some of its pieces; the rest as it was."""
    kept, piece = set(ids), -1
    parts = []
    for number, content in fields(data):
        piece += number == 1
        if number != 1 or piece in kept:
            parts.append(content)
    return b"".join(parts)


def check(name: str, whole: Mapping[str, object]) -> None:
    """Check that the excerpt that was written gives each text the ids of the whole vocabulary."""
    part, tokenizer = excerpt(name), tokenizer_from_metadata(whole)
    cut = tokenizer_from_metadata(part.metadata)
    for text in texts(name):
        found = part.original(cut.encode(text, add_bos=False))
        assert found == list(tokenizer.encode(text, add_bos=False)), (name, text)


def main() -> None:
    """Write the excerpts and check them."""
    folder = Path(sys.argv[1])
    for name in sys.argv[2:] or (*BPE, SENTENCEPIECE):
        whole = read_metadata(folder / f"ggml-vocab-{name}.gguf")
        part = cut_metadata(name, whole)
        content = json.dumps({"ids": part.ids, **part.metadata}, ensure_ascii=True, indent=0)
        (GOLDEN / f"vocabulary-{name}.json").write_text(content + "\n", encoding="ascii")
        if name == SENTENCEPIECE:
            data = (folder / "tokenizer.model").read_bytes()
            SENTENCEPIECE_MODEL.write_bytes(cut_model(data, part.ids))
            original, cut = (
                SentencePieceProcessor(model_proto=model)
                for model in (data, SENTENCEPIECE_MODEL.read_bytes())
            )
            for text in texts(name):
                assert part.original(cut.EncodeAsIds(text)) == original.EncodeAsIds(text), text
        check(name, whole)
        n_used = len(set(chain.from_iterable(ids for _, ids in cases(name))))
        print(f"{name}: {len(part.ids)} tokens, of which the cases use {n_used}")


if __name__ == "__main__":
    main()
