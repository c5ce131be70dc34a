"""From a request to the token ids of its prompt, and the checks that need the model.

Pure and blocking: the scheduler's encoder calls it. Field ranges that need no model are checked
before a request is built, in rpc/from_proto.py.
"""

from llamad.errors import ErrorKind, LlamadError, invalid
from llamad.jobs.request import GenerationRequest
from llamad.schedule.runtime import ModelRuntime


def context_tokens(model: ModelRuntime) -> int:
    """Return the most tokens of one sequence: the context, or the KV cache when it is smaller."""
    return min(model.n_ctx, model.kv_blocks_total * model.kv_block_tokens)


def check_model(model: ModelRuntime, request: GenerationRequest) -> None:
    """Raise MODEL_NOT_FOUND for another model, INVALID_SAMPLING_LOGIT_BIAS for an id it has not."""
    if request.model not in ("", model.name):
        raise LlamadError(
            ErrorKind.NOT_FOUND,
            "MODEL_NOT_FOUND",
            f"model {request.model!r} is not loaded, {model.name!r} is",
        )
    for token in request.sampling.logit_bias:
        if not 0 <= token < model.vocab_size:
            raise invalid(
                "sampling.logit_bias",
                f"token {token} is outside the vocabulary, 0..{model.vocab_size - 1}",
            )


def prompt_bytes(request: GenerationRequest) -> int:
    """Return about how much text there is to encode: its characters, at least."""
    return len(request.prompt or "") + sum(len(message.content) for message in request.messages)


def encode_prompt(model: ModelRuntime, request: GenerationRequest) -> tuple[int, ...]:
    """Render and tokenize a request's prompt.

    Raises INVALID_PROMPT when nothing is in it, PROMPT_TOO_LONG, and what the template raises.
    """
    if request.messages:
        messages = [{"role": m.role, "content": m.content} for m in request.messages]
        tokens = model.chat_template.encode(messages)
    elif request.prompt:
        tokens = model.tokenizer.encode(request.prompt, parse_special=request.parse_special)
    else:
        tokens = []
    if not tokens:
        raise invalid("prompt", "is empty")
    limit = context_tokens(model)
    if len(tokens) > limit:
        raise LlamadError(
            ErrorKind.INVALID,
            "PROMPT_TOO_LONG",
            f"prompt has {len(tokens)} tokens, context holds {limit}",
        )
    return tuple(tokens)


def completion_limit(model: ModelRuntime, request: GenerationRequest, n_prompt: int) -> int:
    """Return the most tokens the completion may have: as asked, at most what the context leaves.

    A prompt that fills the context leaves one: the last token drawn never enters the KV cache.
    """
    left = max(1, context_tokens(model) - n_prompt)
    return left if request.max_tokens is None else min(request.max_tokens, left)
