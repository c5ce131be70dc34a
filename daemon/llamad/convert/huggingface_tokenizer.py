"""The tokenizer of a Hugging Face folder, whichever of its files describe it, as GGUF metadata.

Owns which file wins: tokenizer.model over tokenizer.json; the roles of ids from
tokenizer_config.json, then config.json, and further ends of an answer from generation_config.json.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llamad.convert.bpe_vocabulary import bpe_metadata
from llamad.convert.sentencepiece_file import is_sentencepiece, read_vocabulary
from llamad.convert.source import Metadata, corrupt, read_json
from llamad.text.vocabulary import PREFIX, TokenType

_ROLES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}  # theirs: GGUF's
_END_OF_MESSAGE = "<|eom_id|>"


def read_tokenizer(folder: Path, config: Mapping[str, Any]) -> Metadata:
    """Return the tokenizer's metadata; config: config.json, whose vocab_size the model has.

    Raises LlamadError that names the file and the fault.
    """
    n_tokens = int(config["vocab_size"])
    settings = _read_optional(folder / "tokenizer_config.json")
    content = _read_optional(folder / "tokenizer.json")
    spm = folder / "tokenizer.model"
    if spm.is_file() and is_sentencepiece(spm):
        result = _sentencepiece(spm, content, settings, n_tokens)
    elif content:
        result = bpe_metadata(folder / "tokenizer.json", content, n_tokens)
    else:
        raise corrupt(folder, "has neither tokenizer.model nor tokenizer.json")
    ids = {text: token for token, text in enumerate(result[PREFIX + "tokens"])}
    for name, role in _ROLES.items():
        token = _role(name, settings, config, ids)
        if token is not None:
            result[f"{PREFIX}{role}_token_id"] = token
    _add_ends(result, _read_optional(folder / "generation_config.json"), ids)
    _add_flags(result, settings, content)
    template = _chat_template(folder, settings)
    if template is not None:
        result["tokenizer.chat_template"] = template
    return result


def _read_optional(path: Path) -> Mapping[str, Any]:
    return read_json(path) if path.is_file() else {}


def _sentencepiece(
    path: Path, content: Mapping[str, Any], settings: Mapping[str, Any], n_tokens: int
) -> Metadata:
    """Return a SentencePiece vocabulary with the tokens that were added after its training."""
    vocabulary = read_vocabulary(path)
    if len(vocabulary.pieces) > n_tokens:
        raise corrupt(
            path, f"has {len(vocabulary.pieces)} tokens, the model's embedding {n_tokens}"
        )
    added = _added_tokens(path.parent, content, settings)
    n_pieces = len(vocabulary.pieces)
    vocabulary.pad(n_tokens)
    for token, (text, special) in added.items():
        if token >= n_tokens:
            raise corrupt(path.parent, f"token {text!r} has id {token} of {n_tokens}")
        if token >= n_pieces:
            vocabulary.pieces[token] = text
            vocabulary.types[token] = TokenType.CONTROL if special else TokenType.USER_DEFINED
        elif special and vocabulary.types[token] == TokenType.NORMAL:
            vocabulary.types[token] = TokenType.CONTROL
    return vocabulary.metadata()


def _added_tokens(
    folder: Path, content: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[int, tuple[str, bool]]:
    """Return id -> (text, special) from the three places that different versions wrote."""
    result: dict[int, tuple[str, bool]] = {}
    for text, token in _read_optional(folder / "added_tokens.json").items():
        if isinstance(token, int) and token >= 0:
            result[token] = (text, True)
    for entry in content.get("added_tokens") or []:
        match entry:
            case {"id": int(token), "content": str(text)} if token >= 0:
                result[token] = (text, bool(entry.get("special")))
    decoder = settings.get("added_tokens_decoder")
    for key, entry in decoder.items() if isinstance(decoder, dict) else ():
        match entry:
            case {"content": str(text)} if key.isdecimal():
                result[int(key)] = (text, bool(entry.get("special")))
    return result


def _role(
    name: str, settings: Mapping[str, Any], config: Mapping[str, Any], ids: Mapping[str, int]
) -> int | None:
    """Return the id with a role; None when neither file names one that exists."""
    match settings.get(name + "_token"):
        case str(text) | {"content": str(text)} if text in ids:
            return ids[text]
    match config.get(name + "_token_id"):
        case int(token) | [int(token), *_] if 0 <= token < len(ids):
            return token
    return None


def _add_ends(result: Metadata, generation: Mapping[str, Any], ids: Mapping[str, int]) -> None:
    """Give further tokens that end an answer the roles GGUF has for them."""
    ends = generation.get("eos_token_id")
    ends = ends if isinstance(ends, list) else [ends]
    eom = ids.get(_END_OF_MESSAGE)
    for token in ends:
        if not isinstance(token, int) or not 0 <= token < len(ids):
            continue
        if token == eom:
            result[PREFIX + "eom_token_id"] = token
        elif token != result.setdefault(PREFIX + "eos_token_id", token):
            result.setdefault(PREFIX + "eot_token_id", token)


def _add_flags(result: Metadata, settings: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    """Say whether BOS and EOS are put around a text."""
    for name in ("add_bos_token", "add_eos_token"):
        if isinstance(settings.get(name), bool):
            result[PREFIX + name] = settings[name]
    if PREFIX + "add_bos_token" not in result:
        bos = result.get(PREFIX + "bos_token_id")
        text = None if bos is None else result[PREFIX + "tokens"][bos]
        result[PREFIX + "add_bos_token"] = text is not None and _template_begins_with(content, text)


def _template_begins_with(content: Mapping[str, Any], text: str) -> bool:
    """Say whether tokenizer.json's post-processor puts the token before a text."""
    processor = content.get("post_processor")
    items = [processor]
    if isinstance(processor, dict) and processor.get("type") == "Sequence":
        items = processor.get("processors") or []
    for item in items:
        match item:
            case {
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": str(first)}}, *_],
            }:
                return first == text
    return False


def _chat_template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """Return the default chat template: a file of its own in newer folders."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text("utf-8", "replace")
    match settings.get("chat_template"):
        case str(template):
            return template
        case list(templates):
            named = {t.get("name"): t.get("template") for t in templates if isinstance(t, dict)}
            default = named.get("default")
            return default if isinstance(default, str) else None
    return None
