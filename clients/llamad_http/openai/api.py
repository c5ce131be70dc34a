"""The addresses of OpenAI's API; each is also answered without ``/v1``, as llama-server does."""

from typing import Any

from llamad_client import RenderedChat
from llamad_http.completion import CompletionRequest
from llamad_http.errors import HttpError
from llamad_http.exchange import Exchange
from llamad_http.gateway import Gateway
from llamad_http.openai.chat import read_chat, read_conversation
from llamad_http.openai.completions import read_completion
from llamad_http.openai.echo import read_echoes
from llamad_http.openai.embeddings import embeddings_body, read_format
from llamad_http.openai.errors import error_body
from llamad_http.openai.models import model_entry, model_list
from llamad_http.openai.responses import read_conversation as read_items
from llamad_http.openai.responses import read_response
from llamad_http.routes import Api, Handler, Route
from llamad_http.vectors import read_pooling, read_texts


async def list_models(gateway: Gateway, exchange: Exchange) -> None:
    """Answer with all models."""
    status = await gateway.status()
    base = "" if status.model is None else status.model.name
    await exchange.respond_json(model_list(await gateway.models.entries(), base))


async def get_model(gateway: Gateway, exchange: Exchange) -> None:
    """Answer with one model."""
    name = exchange.path.rpartition("/")[2]
    status = await gateway.status()
    base = "" if status.model is None else status.model.name
    model = await gateway.models.entry(name)
    if model is None or not model.is_served_name:
        raise HttpError(404, "MODEL_NOT_FOUND", f"model {name[:128]!r} not found", field="model")
    await exchange.respond_json(model_entry(model, base))


async def chat(gateway: Gateway, exchange: Exchange) -> None:
    """Answer a conversation."""
    await gateway.complete(exchange, read_chat(await exchange.fields()), any_name=True)


async def embed(gateway: Gateway, exchange: Exchange) -> None:
    """Answer with the vectors of texts."""
    body = await exchange.fields()
    texts, written = read_texts(body, "input"), read_format(body)
    model, vectors = await gateway.embed(
        exchange,
        body.text("model") or "",
        texts,
        truncate=False,
        any_name=True,
        dimensions=body.integer("dimensions", 1, 2**32 - 1),
        pooling=read_pooling(body),
    )
    await exchange.respond_json(embeddings_body(vectors, model, written))


async def apply_template(gateway: Gateway, exchange: Exchange) -> None:
    """Answer with what the model would read of a conversation; llama-server's address."""
    await exchange.respond_json({"prompt": (await _rendered_chat(gateway, exchange)).text})


async def complete(gateway: Gateway, exchange: Exchange) -> None:
    """Continue texts."""
    asked, writer = read_completion(await exchange.fields())
    if writer.wants_echo:
        writer.echoes = await read_echoes(gateway, exchange, asked)
    await gateway.complete(exchange, asked, any_name=True)


async def respond(gateway: Gateway, exchange: Exchange) -> None:
    """Answer a conversation of items."""
    await gateway.complete(exchange, read_response(await exchange.fields()), any_name=True)


async def count_input(gateway: Gateway, exchange: Exchange) -> None:
    """Answer with the tokens that a conversation of items is to the model."""
    rendered = await gateway.render(exchange, read_items(await exchange.fields()))
    await exchange.respond_json(_counted(rendered))


async def count_chat(gateway: Gateway, exchange: Exchange) -> None:
    """Answer with the tokens that a chat is to the model; llama-server's address."""
    await exchange.respond_json(_counted(await _rendered_chat(gateway, exchange)))


async def _rendered_chat(gateway: Gateway, exchange: Exchange) -> RenderedChat:
    body = await exchange.fields()
    messages, options = read_conversation(body)
    request = CompletionRequest(body.text("model") or "", options, messages=messages)
    return await gateway.render(exchange, request)


def _counted(rendered: RenderedChat) -> dict[str, Any]:
    return {"object": "response.input_tokens", "input_tokens": len(rendered.tokens)}


async def kept_response(gateway: Gateway, exchange: Exchange) -> None:
    """Say that no response is kept."""
    raise HttpError(404, "RESPONSE_NOT_FOUND", "responses are not kept: no id of one is known")


def _both(method: str, path: str, handler: Handler) -> tuple[Route, Route]:
    return Route(method, f"/v1{path}", handler), Route(method, path, handler)


API = Api(
    (
        *_both("GET", "/models", list_models),
        *_both("GET", "/models/*", get_model),
        *_both("POST", "/chat/completions", chat),
        *_both("POST", "/chat/completions/input_tokens", count_chat),
        Route("POST", "/v1/completions", complete),
        *_both("POST", "/embeddings", embed),
        Route("POST", "/apply-template", apply_template),
        *_both("POST", "/responses", respond),
        *_both("POST", "/responses/input_tokens", count_input),
        *_both("GET", "/responses/*", kept_response),
    ),
    error_body,
)
