"""From a request to the token ids of its prompt, and the checks that need the model.

Pure and blocking: the scheduler's encoder calls it. Field ranges that need no model are checked
before a request is built, in rpc/from_proto.py.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llamad.engine.run import AdapterUse
from llamad.errors import ErrorKind, LlamadError, invalid
from llamad.jobs.request import (
    ChatMessage,
    ContextFull,
    Embedding,
    GenerationRequest,
    Priority,
    Scoring,
)
from llamad.jobs.request import Tool as OfferedTool
from llamad.schedule.conversation import Fitted, Message, answer_room, fit_conversation
from llamad.schedule.runtime import ModelRuntime
from llamad.sizes import counted
from llamad.text.rank_prompt import RankTokens
from llamad.text.tools.call import Tool

UNENDING_TOKENS = 512  # of a completion for which nobody said, of a model that may never end it


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a request's job begins with."""

    tokens: tuple[int, ...]
    dropped_messages: int = 0  # the oldest of a chat, for which the context had no room
    is_chat: bool = False  # rendered from messages
    n_pinned: int = 0  # tokens at its beginning that the request pins
    truncated_tokens: int = 0  # of a text for a vector, that are left out
    given_tokens: tuple[int, ...] = ()  # of a completion that is scored

    def without_text(
        self, request: GenerationRequest, priority: Priority | None
    ) -> GenerationRequest:
        """Return what of a request is kept: its text would take up to four bytes a character."""
        return replace(
            request,
            prompt=None,
            messages=(),
            tokens=(),
            template_arguments={},
            priority=priority,
            scoring=request.scoring and Scoring(tokens=self.given_tokens),
            embedding=request.embedding
            and replace(request.embedding, query=None if request.embedding.query is None else ""),
        )


def context_tokens(model: ModelRuntime) -> int:
    """Return the most tokens of one sequence: the context, or the KV cache when it is smaller."""
    return min(model.n_ctx, model.kv_blocks_total * model.kv_block_tokens)


def adapter_of(model: ModelRuntime, request: GenerationRequest) -> AdapterUse | None:
    """Return the adapter of a submitted request. Raises ADAPTER_NOT_FOUND, ADAPTER_CHANGED."""
    return None if request.adapter is None else model.adapters.use(request.adapter)


def for_model(model: ModelRuntime, request: GenerationRequest) -> GenerationRequest:
    """Return a request with the digest of its adapter; raise what it asks of the wrong model.

    MODEL_NOT_FOUND, ADAPTER_NOT_FOUND, ADAPTER_NOT_LOADED, MODEL_MAKES_VECTORS,
    MODEL_MAKES_NO_VECTORS, INVALID_SAMPLING_LOGIT_BIAS and INVALID_PROMPT_TOKENS for an id outside
    of the vocabulary, PROMPT_TOO_LONG for too many of them.
    """
    if request.model not in ("", model.name):
        raise LlamadError(
            ErrorKind.NOT_FOUND,
            "MODEL_NOT_FOUND",
            f"model {request.model!r} is not loaded, {model.name!r} is",
        )
    ranks = request.embedding is not None and request.embedding.query is not None
    if ranks and model.rank_prompt is None:
        raise LlamadError(
            ErrorKind.STATE,
            "MODEL_DOES_NOT_RANK",
            f"model {model.name!r} is no reranker",
        )
    if model.is_encoder and request.embedding is None:
        raise LlamadError(
            ErrorKind.STATE,
            "MODEL_MAKES_VECTORS",
            f"model {model.name!r} makes vectors of texts (Embed), and no answers",
        )
    embedding = request.embedding
    if embedding is not None and not ranks and (embedding.pooling or model.pooling) is None:
        raise LlamadError(
            ErrorKind.STATE,
            "MODEL_MAKES_NO_VECTORS",
            f"model {model.name!r} was not made for vectors: its file has no pooling_type; with"
            " `pooling` in the request it makes some",
        )
    limit = context_tokens(model)
    if len(request.tokens) > limit:
        raise _too_long(request, Fitted(request.tokens, 0), limit)
    for name, tokens in (
        ("sampling.logit_bias", request.sampling.logit_bias),
        ("prompt_tokens", request.tokens),
        ("continuations", request.scoring.tokens if request.scoring is not None else ()),
    ):
        for token in tokens:
            if not 0 <= token < model.vocab_size:
                raise invalid(
                    name, f"token {token} is outside the vocabulary, 0..{model.vocab_size - 1}"
                )
    if request.adapter is None:
        return request
    digest = model.adapters.digest(request.adapter.name)
    return replace(request, adapter=replace(request.adapter, digest=digest))


def prompt_bytes(request: GenerationRequest) -> int:
    """Return about how much text there is to encode: its characters, at least."""
    return (
        len(request.prompt or "")
        + (len(request.embedding.query or "") if request.embedding is not None else 0)
        + (len(request.scoring.text) if request.scoring is not None else 0)
        + sum(len(m.content) + len(m.thinking) for m in request.messages)
        + sum(len(call.arguments) for m in request.messages for call in m.tool_calls)
        + sum(len(tool.description) + len(tool.parameters) for tool in request.tools)
    )


def encode_prompt(model: ModelRuntime, request: GenerationRequest) -> Prompt:
    """Render and tokenize a request's prompt; leave out a chat's oldest messages where it may.

    Raises INVALID_PROMPT when nothing is in it, PROMPT_TOO_LONG, and what the template raises.
    """
    if request.embedding is not None and request.embedding.query is not None:
        return _text_to_rank(model, request.embedding, request.prompt or "")
    if request.tokens:
        fitted = Fitted(request.tokens, 0)
    elif request.messages:
        fitted = _encode_chat(model, request)
    elif request.prompt:
        fitted = Fitted(
            model.tokenizer.encode(request.prompt, parse_special=request.parse_special), 0
        )
    else:
        fitted = Fitted((), 0)
    if not fitted.tokens:
        raise invalid("prompt", "is empty")
    limit = context_tokens(model)
    if request.embedding is not None:
        return _text_to_embed(model, request.embedding, tuple(fitted.tokens))
    if len(fitted.tokens) > limit:
        raise _too_long(request, fitted, limit)
    tokens = tuple(fitted.tokens)
    if request.scoring is not None:
        return _text_to_score(model, request, request.scoring, tokens)
    return Prompt(
        tokens, fitted.n_dropped, bool(request.messages), _n_pinned(model, request, tokens)
    )


def _text_to_embed(model: ModelRuntime, embedding: Embedding, tokens: tuple[int, ...]) -> Prompt:
    """Return a text's tokens, cut before its last one where they are too many and that may be."""
    # the last one may be the end that the model expects
    return _cut(model, RankTokens(tokens, 0, 1), truncates=embedding.truncates)


def _text_to_rank(model: ModelRuntime, embedding: Embedding, text: str) -> Prompt:
    """Return the tokens of a query and a text; only the text is cut."""
    assert model.rank_prompt is not None  # for_model saw it
    pair = model.rank_prompt.encode(embedding.query or "", text)
    return _cut(model, pair, truncates=embedding.truncates)


def _cut(model: ModelRuntime, text: RankTokens, *, truncates: bool) -> Prompt:
    """Return tokens that one text may have, cut before its end where that may be."""
    tokens, limit = text.tokens, context_tokens(model)
    limit = min(limit, model.n_batch) if model.is_encoder else limit
    if len(tokens) <= limit:
        return Prompt(tokens)
    if not truncates or text.n_before + text.n_after >= limit:
        advice = "shorten it, cut it into several, or allow `truncate`"
        if truncates:
            advice = f"{text.n_before + text.n_after} of them are no part that may be cut"
        raise LlamadError(
            ErrorKind.INVALID,
            "PROMPT_TOO_LONG",
            f"text has {counted(len(tokens), 'token')}, model {model.name!r} reads {limit}:"
            f" {advice}",
        )
    end = len(tokens) - text.n_after
    kept = (*tokens[: limit - text.n_after], *tokens[end:])
    return Prompt(kept, truncated_tokens=len(tokens) - limit)


def _text_to_score(
    model: ModelRuntime, request: GenerationRequest, scoring: Scoring, tokens: tuple[int, ...]
) -> Prompt:
    """Return a prompt with the tokens of the completion that is scored. Raises PROMPT_TOO_LONG."""
    given = scoring.tokens or tuple(
        model.tokenizer.encode(scoring.text, add_bos=False, parse_special=scoring.parse_special)
    )
    if not given:
        raise invalid("continuations", "one has no tokens")
    limit = context_tokens(model)
    if len(tokens) + len(given) > limit:
        raise _too_long(request, Fitted((*tokens, *given), 0), limit)
    return Prompt(tokens, given_tokens=given)


def _n_pinned(model: ModelRuntime, request: GenerationRequest, tokens: Sequence[int]) -> int:
    """Return how many tokens the request pins: of a chat those of its leading system messages."""
    if not request.pin:
        return 0
    if not request.messages:
        return len(tokens)
    messages = template_messages(request.messages)
    system = list(itertools.takewhile(lambda message: message["role"] == "system", messages))
    arguments = template_arguments(model, request)
    return common_length(tokens, system_tokens(model, system, arguments, offered_tools(request)))


def system_tokens(
    model: ModelRuntime,
    system: Sequence[Message],
    arguments: Mapping[str, Any],
    tools: Sequence[Tool] = (),
) -> list[int]:
    """Return the tokens that every chat with these system messages begins with.

    Templates put them where they like, some into the user's turn: so what two chats have in common
    is what two different ones are rendered to alike.
    """
    one, other = (
        model.chat_template.encode(
            [*system, {"role": "user", "content": text}], arguments=arguments, tools=tools
        )
        for text in ("a", "Z")
    )
    return one[: common_length(one, other)]


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two sequences begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _encode_chat(model: ModelRuntime, request: GenerationRequest) -> Fitted:
    messages = template_messages(request.messages)
    arguments, tools = template_arguments(model, request), offered_tools(request)

    def render(kept: Sequence[Message]) -> Sequence[int]:
        tokens = model.chat_template.encode(
            kept,
            arguments=arguments,
            tools=tools,
            continue_final=request.continue_final_message,
        )
        return [*tokens, *model.begun_answer(tokens, request)]

    if request.context_full is ContextFull.REFUSE:
        return Fitted(render(messages), 0)
    limit = context_tokens(model)
    return fit_conversation(
        messages,
        render=render,
        count=lambda text: len(model.tokenizer.encode(text, add_bos=False)),
        context_tokens=limit,
        room_tokens=answer_room(limit, request.max_tokens),
    )


def template_messages(messages: Sequence[ChatMessage]) -> list[Message]:
    """Return messages as the chat template takes them."""
    result: list[Message] = []
    for message in messages:
        plain: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.tool_calls:
            plain["tool_calls"] = [
                {"name": call.name, "id": call.id, "arguments": json.loads(call.arguments)}
                for call in message.tool_calls
            ]
        for name in ("tool_call_id", "tool_name", "thinking"):
            if value := getattr(message, name):
                plain[name] = value
        result.append(plain)
    return result


def offered_tools(request: GenerationRequest) -> list[Tool]:
    """Return the tools that the model is told of."""
    return template_tools(request.tools) if request.offers_tools else []


def template_tools(tools: Sequence[OfferedTool]) -> list[Tool]:
    """Return tools as the chat template takes them."""
    return [
        Tool(tool.name, tool.description, json.loads(tool.parameters) if tool.parameters else {})
        for tool in tools
    ]


def template_arguments(model: ModelRuntime, request: GenerationRequest) -> Mapping[str, Any]:
    """Return the arguments of the chat template; whether to think goes over those that say it."""
    thinking = request.thinking
    if thinking.enabled is None and thinking.effort is None:
        return request.template_arguments
    told = model.chat_template.thinking_arguments(thinking.enabled, thinking.effort)
    return {**request.template_arguments, **told}


def _too_long(request: GenerationRequest, fitted: Fitted, limit: int) -> LlamadError:
    """Return the error that names the tokens, the context, and what to do."""
    without, advice = "", "shorten it, or raise model.ctx_size"
    if request.messages and request.context_full is ContextFull.REFUSE:
        advice = "leave out its oldest messages, or allow that with context_full = drop-oldest"
    elif fitted.n_dropped:
        without = f" without its {counted(fitted.n_dropped, 'oldest message')}"
        advice = "shorten the newest message, or raise model.ctx_size"
    length = counted(len(fitted.tokens), "token")
    return LlamadError(
        ErrorKind.INVALID,
        "PROMPT_TOO_LONG",
        f"prompt has {length}{without}, context holds {limit}: {advice}",
    )


def completion_limit(model: ModelRuntime, request: GenerationRequest, n_prompt: int) -> int:
    """Return the most tokens the completion may have: as asked, at most what the context leaves.

    A prompt that fills the context leaves one: the last token drawn never enters the KV cache.
    """
    wanted = request.max_tokens
    if request.embedding is not None:
        return 0
    if request.scoring is not None:
        return len(request.scoring.tokens)
    if wanted is None and not model.ends_answers:
        wanted = UNENDING_TOKENS
    left = context_left(model, n_prompt)
    return left if wanted is None else min(wanted, left)


def context_left(model: ModelRuntime, n_prompt: int) -> int:
    """Return the tokens that the context leaves to the completion of a prompt, one at least."""
    return max(1, context_tokens(model) - n_prompt)
