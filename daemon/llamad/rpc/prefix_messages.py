"""Prefixes as messages, and the checks of what is asked of them."""

from collections.abc import Callable, Sequence

from llamad.errors import invalid
from llamad.rpc.from_proto import Rules, check_prefix_name
from llamad.schedule.prompt import system_tokens
from llamad.schedule.runtime import ModelRuntime
from llamad.service.prefixes import KeptPrefix
from llamad_api.v1 import admin_pb2
from llamad_api.v1 import llamad_pb2 as pb


def prefix(kept: KeptPrefix, model: str) -> pb.Prefix:
    """Return a prefix of a model as ListPrefixes shows it."""
    return pb.Prefix(
        name=kept.name,
        model=model,
        tokens=kept.tokens,
        bytes_on_disk=kept.bytes_on_disk,
        uses=kept.uses,
        for_everybody=kept.for_everybody,
        in_memory=kept.in_memory,
        age_seconds=kept.age_seconds,
    )


def prefix_text(
    message: admin_pb2.AddPrefixRequest, rules: Rules, model: ModelRuntime
) -> tuple[Callable[[], Sequence[int]], int]:
    """Return what turns the text of an AddPrefix call into tokens, blocking, and its bytes."""
    check_prefix_name("name", message.name)
    kind = message.WhichOneof("text")
    text = "" if kind is None else getattr(message, kind)
    if not text:
        raise invalid(kind or "system", "is empty")
    n_bytes = len(text.encode())
    if n_bytes > rules.max_prompt_bytes:
        raise invalid(str(kind), f"has {n_bytes} bytes, at most {rules.max_prompt_bytes}")
    if kind == "prompt":
        return lambda: model.tokenizer.encode(text), n_bytes
    system = [{"role": "system", "content": text}]
    return lambda: system_tokens(model, system, rules.template_arguments), n_bytes
