"""What the bodies of requests look like, as JSON Schema, by address.

They name the fields that have to be there and the types of the usual ones; other fields are
allowed everywhere, because the gateway ignores what it does not know. The gateway does not check
requests by them: what it refuses, it says itself.
"""

from typing import Any

TEXT: dict[str, Any] = {"type": "string"}
FLAG: dict[str, Any] = {"type": "boolean"}
NUMBER: dict[str, Any] = {"type": "number"}
COUNT: dict[str, Any] = {"type": "integer"}
OBJECT: dict[str, Any] = {"type": "object"}
TEXTS: dict[str, Any] = {"anyOf": [TEXT, {"type": "array", "items": TEXT}]}
CONTENT: dict[str, Any] = {"anyOf": [TEXT, {"type": "array", "items": OBJECT}]}


def _object(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": properties}


def _messages(*roles: str) -> dict[str, Any]:
    message = _object(("role",), role={"enum": list(roles)}, content=CONTENT)
    return {"type": "array", "minItems": 1, "items": message}


_SAMPLING = {
    **{"temperature": NUMBER, "top_p": NUMBER, "top_k": COUNT, "min_p": NUMBER, "seed": COUNT},
    **{"stop": TEXTS, "presence_penalty": NUMBER, "frequency_penalty": NUMBER, "stream": FLAG},
}
_LORA = {"type": "array", "items": _object(("id", "scale"), id=COUNT, scale=NUMBER)}
_TOOLS = {"type": "array", "items": OBJECT}
_CHAT = _object(
    ("messages",),
    model=TEXT,
    messages=_messages("system", "developer", "user", "assistant", "tool"),
    max_tokens=COUNT,
    max_completion_tokens=COUNT,
    n={"type": "integer", "minimum": 1, "maximum": 8},
    tools=_TOOLS,
    tool_choice={},
    response_format=OBJECT,
    reasoning_effort=TEXT,
    logprobs=FLAG,
    lora=_LORA,
    **_SAMPLING,
)
_MESSAGES = _object(
    ("max_tokens", "messages"),
    model=TEXT,
    max_tokens={"type": "integer", "minimum": 1},
    messages=_messages("user", "assistant"),
    system=CONTENT,
    tools=_TOOLS,
    tool_choice=OBJECT,
    thinking=OBJECT,
    stop_sequences={"type": "array", "items": TEXT},
    output_config=OBJECT,
    **_SAMPLING,
)
_RESPONSE = _object(
    ("input",),
    model=TEXT,
    input=CONTENT,
    instructions=TEXT,
    max_output_tokens=COUNT,
    tools=_TOOLS,
    text=OBJECT,
    reasoning=OBJECT,
    truncation={"enum": ["auto", "disabled"]},
    **_SAMPLING,
)
_OLLAMA = {"model": TEXT, "stream": FLAG, "options": OBJECT, "format": {}, "keep_alive": {}}
_MODEL = _object(("model",), model=TEXT)

_COMPLETION = _object(
    ("prompt",), prompt={}, n_predict=COUNT, grammar=TEXT, lora=_LORA, **_SAMPLING
)

_RERANK = _object(
    ("query",), model=TEXT, query=TEXT, documents=TEXTS, top_n=COUNT, return_documents=FLAG
)

BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": _CHAT,
    "/apply-template": _CHAT,
    "/v1/chat/completions/input_tokens": _CHAT,
    "/v1/completions": _object(
        ("prompt",), model=TEXT, prompt=TEXTS, max_tokens=COUNT, echo=FLAG, lora=_LORA, **_SAMPLING
    ),
    "/v1/embeddings": _object(
        ("input",),
        model=TEXT,
        input=TEXTS,
        encoding_format={"enum": ["float", "base64"]},
        dimensions=COUNT,
        pooling={"enum": ["mean", "first", "last"]},
    ),
    "/v1/responses": _RESPONSE,
    "/v1/responses/input_tokens": _RESPONSE,
    "/v1/messages": _MESSAGES,
    "/v1/messages/count_tokens": _MESSAGES,
    "/api/chat": _object(
        ("model",),
        **_OLLAMA,
        messages=_messages("system", "user", "assistant", "tool"),
        tools=_TOOLS,
        think={},
    ),
    "/api/generate": _object(("model",), **_OLLAMA, prompt=TEXT, system=TEXT, raw=FLAG),
    "/api/show": _MODEL,
    "/api/pull": _object(("model",), model=TEXT, stream=FLAG),
    "/api/delete": _MODEL,
    "/api/copy": _object(("source", "destination"), source=TEXT, destination=TEXT),
    "/api/create": OBJECT,
    "/api/push": OBJECT,
    "/api/embed": _object(
        ("model", "input"), model=TEXT, input=TEXTS, truncate=FLAG, dimensions=COUNT
    ),
    "/api/embeddings": _object(("model", "prompt"), model=TEXT, prompt=TEXT),
    "/lora-adapters": _LORA,
    "/models/load": _MODEL,
    "/models/unload": _MODEL,
    "/completion": _COMPLETION,
    "/completions": _COMPLETION,
    "/v1/rerank": _RERANK,
    "/v2/rerank": _RERANK,
    "/v1/reranking": _RERANK,
    "/embedding": _object(
        ("content",), model=TEXT, content=TEXTS, embd_normalize={"type": "integer", "minimum": 0}
    ),
    "/tokenize": _object(("content",), content=TEXT, add_special=FLAG, with_pieces=FLAG),
    "/detokenize": _object(
        ("tokens",), tokens={"type": "array", "items": {"type": "integer", "minimum": 0}}
    ),
}
