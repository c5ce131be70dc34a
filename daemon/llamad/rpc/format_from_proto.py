"""What an answer must look like, from the message of a request; sizes only.

Whether a schema or a grammar is right is found when it is compiled (schedule/format_compiler.py).
"""

from llamad.errors import invalid
from llamad.sampling.response_format import (
    MAX_CHOICES,
    MAX_FORMAT_BYTES,
    FormatKind,
    ResponseFormat,
)
from llamad_api.v1 import llamad_pb2 as pb

_TEXTS = {
    kind.value: kind for kind in (FormatKind.JSON_SCHEMA, FormatKind.GRAMMAR, FormatKind.REGEX)
}


def response_format(options: pb.Options) -> ResponseFormat | None:
    """Return the checked format of a request; None for none. Raises INVALID_RESPONSE_FORMAT."""
    if not options.HasField("response_format"):
        return None
    message = options.response_format
    kind = message.WhichOneof("kind")
    if message.closed_objects and kind not in (None, "json_schema"):
        raise invalid("response_format.closed_objects", f"is of json_schema, and this is {kind}")
    match kind:
        case None:
            raise invalid("response_format", "is empty: give one of its kinds")
        case "json_object":
            return ResponseFormat(FormatKind.JSON_OBJECT) if message.json_object else None
        case "choices":
            texts = tuple(message.choices.texts)
            if not 1 <= len(texts) <= MAX_CHOICES or not all(texts):
                raise invalid(
                    "response_format.choices",
                    f"there are {len(texts)}, must be 1 to {MAX_CHOICES}, none empty",
                )
            _check_size("choices", sum(len(text.encode()) for text in texts))
            return ResponseFormat(FormatKind.CHOICES, choices=texts)
        case _:
            text: str = getattr(message, kind)
            _check_size(kind, len(text.encode()))
            return ResponseFormat(_TEXTS[kind], text, closed_objects=message.closed_objects)


def _check_size(name: str, n_bytes: int) -> None:
    if n_bytes > MAX_FORMAT_BYTES:
        raise invalid(f"response_format.{name}", f"has {n_bytes} bytes, at most {MAX_FORMAT_BYTES}")
