"""The tokenizer of a Hugging Face folder, whichever of its files describe it, as GGUF metadata.

Owns which file wins: tokenizer.model over tokenizer.json; the roles of ids from
tokenizer_config.json, then config.json, and further ends of an answer from generation_config.json.
"""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from llamad.text.vocabulary import PREFIX, TokenType
from llamad_tools.checkpoints.added_tokens import (
    AddedToken,
    read_added_tokens,
    read_optional,
    role_text,
)
from llamad_tools.checkpoints.bpe_vocabulary import bpe_metadata
from llamad_tools.checkpoints.huggingface_sentencepiece import (
    is_sentencepiece_json,
    read_sentencepiece_json,
)
from llamad_tools.checkpoints.sentencepiece_file import (
    SentencePieceVocabulary,
    is_sentencepiece,
    read_vocabulary,
)
from llamad_tools.checkpoints.source import Metadata, SourceFile, corrupt
from llamad_tools.checkpoints.spaced_bpe_vocabulary import spaced_bpe_metadata
from llamad_tools.checkpoints.wordpiece_vocabulary import is_wordpiece, wordpiece_metadata

_ROLES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}  # theirs: GGUF's
_SPACED_BPE = frozenset({"gemma4_text"})  # whose vocabulary is no SentencePiece's
_END_OF_MESSAGE = "<|eom_id|>"
_MAX_TEMPLATE_BYTES = 1 << 20  # Llama 3.1's has 4 KB


def read_tokenizer(folder: Path, config: Mapping[str, Any]) -> Metadata:
    """Return the tokenizer's metadata; config: config.json, whose vocab_size the model has.

    Raises LlamadError that names the file and the fault.
    """
    settings = read_optional(folder / "tokenizer_config.json")
    content = read_optional(folder / "tokenizer.json")
    result = _vocabulary(folder, content, settings, config)
    ids = {text: token for token, text in enumerate(result[PREFIX + "tokens"])}
    roles = read_optional(folder / "special_tokens_map.json")
    for name, role in _ROLES.items():
        token = ids.get(role_text(name + "_token", settings, roles) or "", _role_id(config, name))
        if token is not None and 0 <= token < len(ids):
            result[f"{PREFIX}{role}_token_id"] = token
    for place in (read_optional(folder / "generation_config.json"), config):
        _add_ends(result, place.get("eos_token_id"), ids)
    _add_flags(result, settings, content)
    template = _chat_template(folder, settings)
    if template is not None:
        result["tokenizer.chat_template"] = template
    return result


def _vocabulary(
    folder: Path,
    content: Mapping[str, Any],
    settings: Mapping[str, Any],
    config: Mapping[str, Any],
) -> Metadata:
    """Return the metadata without the roles of ids, or with those of tokenizer.model."""
    n_tokens = int(config["vocab_size"])
    added = read_added_tokens(folder, content, settings)
    spm, fast = folder / "tokenizer.model", folder / "tokenizer.json"
    if content and config.get("model_type") in _SPACED_BPE:
        return spaced_bpe_metadata(fast, content, added, n_tokens)
    if spm.is_file() and is_sentencepiece(spm):
        return _with_added(spm, read_vocabulary(spm), added, n_tokens)
    if not content:
        raise corrupt(folder, "has neither tokenizer.model nor tokenizer.json")
    if is_wordpiece(content):
        return wordpiece_metadata(fast, content, added, n_tokens)
    if is_sentencepiece_json(content):
        vocabulary = read_sentencepiece_json(fast, content, added, n_tokens)
        return _with_added(fast, vocabulary, added, n_tokens)
    return bpe_metadata(fast, content, added, n_tokens)


def _with_added(
    path: Path, vocabulary: SentencePieceVocabulary, added: Mapping[int, AddedToken], n_tokens: int
) -> Metadata:
    """Return a SentencePiece vocabulary with the tokens that were added after its training.

    Tokens beyond the embedding are left out: no model can know them.
    """
    n_pieces = len(vocabulary.pieces)
    if n_pieces > n_tokens:
        raise corrupt(path, f"has {n_pieces} tokens, the model's embedding {n_tokens}")
    vocabulary.pad(n_tokens)
    for token, extra in added.items():
        if token >= n_tokens:
            continue
        known = vocabulary.pieces[token] == extra.text
        if not known or vocabulary.types[token] == TokenType.NORMAL:
            vocabulary.pieces[token] = extra.text
            vocabulary.types[token] = extra.kind
    return vocabulary.metadata()


def _role_id(config: Mapping[str, Any], name: str) -> int | None:
    """Return the id that config.json gives a role; the first where there are several."""
    match config.get(name + "_token_id"):
        case int(token) | [int(token), *_]:
            return token
    return None


def _add_ends(result: Metadata, ends: Any, ids: Mapping[str, int]) -> None:
    """Give further tokens that end an answer the roles GGUF has for them."""
    eom = ids.get(_END_OF_MESSAGE)
    for token in ends if isinstance(ends, list) else [ends]:
        if not isinstance(token, int) or not 0 <= token < len(ids):
            continue
        if token == eom:
            result[PREFIX + "eom_token_id"] = token
        elif token != result.setdefault(PREFIX + "eos_token_id", token):
            result.setdefault(PREFIX + "eot_token_id", token)


def _add_flags(result: Metadata, settings: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    """Say whether BOS, EOS and, in a SentencePiece vocabulary, a space are put around a text."""
    template = _template(content)
    for name, place in (("bos", 0), ("eos", -1)):
        key = f"{PREFIX}add_{name}_token"
        if isinstance(settings.get(f"add_{name}_token"), bool):
            result[key] = settings[f"add_{name}_token"]
        elif template:
            token = result.get(f"{PREFIX}{name}_token_id")
            text = None if token is None else result[PREFIX + "tokens"][token]
            result[key] = text is not None and template[place] == text
    result.setdefault(PREFIX + "add_bos_token", False)
    prefix = settings.get("add_prefix_space")
    if isinstance(prefix, bool) and PREFIX + "add_space_prefix" in result:
        result[PREFIX + "add_space_prefix"] = prefix


def _template(content: Mapping[str, Any]) -> list[str]:
    """Return what tokenizer.json's post-processor makes of a text: special tokens, "" for it.

    A template without special tokens is empty: transformers writes it for tokenizers of which it
    does not know whether they add any.
    """
    processor = content.get("post_processor")
    items: Any = [processor]
    if isinstance(processor, dict) and processor.get("type") == "Sequence":
        items = processor.get("processors")
    for item in items if isinstance(items, list) else []:
        match item:
            case {"type": "TemplateProcessing", "single": list(parts)}:
                texts = [_template_part(part) for part in parts]
                return texts if any(texts) else []
    return []


def _template_part(part: Any) -> str:
    match part:
        case {"SpecialToken": {"id": str(text)}}:
            return text
    return ""


def _chat_template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """Return the default chat template: a file of its own in newer folders."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        with closing(SourceFile(path)) as file:
            if file.n_bytes > _MAX_TEMPLATE_BYTES:
                raise corrupt(path, f"is larger than {_MAX_TEMPLATE_BYTES} bytes")
            return file.read(0, file.n_bytes).decode("utf-8", "replace")
    own = read_optional(folder / "chat_template.json")
    match own.get("chat_template") or settings.get("chat_template"):
        case str(template):
            return template
        case list(templates):
            named = {t.get("name"): t.get("template") for t in templates if isinstance(t, dict)}
            default = named.get("default")
            return default if isinstance(default, str) else None
    return None
