"""The addresses of llama-server that are nobody else's."""

from urllib.parse import parse_qs

from llamad_client import ClientError
from llamad_http.adapters import FIELD, chosen, loaded_adapters, read_lora
from llamad_http.administration import check_admin
from llamad_http.errors import HttpError, busy, from_client_error, refusal_of_file
from llamad_http.exchange import Exchange
from llamad_http.gateway import Gateway
from llamad_http.llama_server.completion import read_completion
from llamad_http.llama_server.embedding import embedding_body, read_contents, read_norm
from llamad_http.llama_server.errors import error_body
from llamad_http.llama_server.prompts import read_prompts, with_token_biases
from llamad_http.llama_server.properties import properties, slots
from llamad_http.llama_server.tokens import read_text, read_tokens, tokens_body
from llamad_http.rerank import read_rerank, rerank_body
from llamad_http.routes import Api, Route
from llamad_http.vectors import read_pooling

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


async def health(gateway: Gateway, exchange: Exchange) -> None:
    """Answer whether a model is served."""
    status = await gateway.status()
    if status.state != "ready":
        loading = status.state == "loading"
        message = "Loading model" if loading else status.detail or status.state.replace("_", " ")
        raise HttpError(503, "NOT_READY", message, retry_after_seconds=2 if loading else None)
    await exchange.respond_json({"status": "ok"})


async def props(gateway: Gateway, exchange: Exchange) -> None:
    """Answer with the model and its settings."""
    status = await gateway.status()
    try:
        model = await gateway.client.get_model()
        version = await gateway.client.version()
    except ClientError as error:
        raise refusal_of_file(error) from None
    await exchange.respond_json(properties(status, model, version.version))


async def list_slots(gateway: Gateway, exchange: Exchange) -> None:
    """Answer with the places of jobs; with ``fail_on_no_slot`` 503 where all are taken."""
    status = await gateway.status()
    query = parse_qs(exchange.scope["query_string"].decode("latin-1"))
    if "fail_on_no_slot" in query and status.jobs_running >= status.sequence_slots:
        raise busy("no slot available", "NO_SLOT")
    await exchange.respond_json(slots(status))


async def metrics(gateway: Gateway, exchange: Exchange) -> None:
    """Answer with the numbers of the service, in the text format of Prometheus."""
    try:
        text = await gateway.client.metrics()
    except ClientError as error:
        raise from_client_error(error) from None
    await exchange.respond(text.encode(), METRICS_TYPE)


async def tokenize(gateway: Gateway, exchange: Exchange) -> None:
    """Answer with the tokens of a text."""
    text = read_text(await exchange.fields())
    try:
        pieces = await gateway.client.token_pieces(
            text.content, add_bos=text.add_special, parse_special=text.parse_special
        )
    except ClientError as error:
        raise from_client_error(error) from None
    await exchange.respond_json(tokens_body(pieces, with_pieces=text.with_pieces))


async def detokenize(gateway: Gateway, exchange: Exchange) -> None:
    """Answer with the text of tokens."""
    tokens = read_tokens(await exchange.fields())
    try:
        text = await gateway.client.detokenize(tokens)
    except ClientError as error:
        raise from_client_error(error) from None
    await exchange.respond_json({"content": text})


async def complete(gateway: Gateway, exchange: Exchange) -> None:
    """Continue a text."""
    body = await with_token_biases(gateway, await exchange.fields())
    asked = read_completion(body, await read_prompts(gateway, body))
    await gateway.complete(exchange, asked, any_name=True)


async def embed(gateway: Gateway, exchange: Exchange) -> None:
    """Answer with the vectors of texts, each in a list of its own."""
    body = await exchange.fields()
    texts, norm = read_contents(body), read_norm(body)
    model = body.text("model") or ""
    pooling = read_pooling(body)
    _, vectors = await gateway.embed(
        exchange, model, texts, truncate=False, any_name=True, pooling=pooling
    )
    await exchange.respond_json(embedding_body(vectors, norm))


async def rerank(gateway: Gateway, exchange: Exchange) -> None:
    """Answer with documents in the order in which they answer a question."""
    body = await exchange.fields()
    asked = read_rerank(body)
    model, ranking = await gateway.rerank(exchange, body.text("model") or "", asked)
    await exchange.respond_json(rerank_body(asked, ranking, model))


async def list_adapters(gateway: Gateway, exchange: Exchange) -> None:
    """Answer with the adapters of the loaded model, and what requests get that name none."""
    usual = gateway.models.usual_adapter
    names = loaded_adapters(await gateway.status())
    await exchange.respond_json(
        [
            {
                "id": number,
                "path": f"{name}.gguf",
                "scale": usual.scale if usual is not None and usual.name == name else 0.0,
            }
            for number, name in enumerate(names)
        ]
    )


async def set_adapters(gateway: Gateway, exchange: Exchange) -> None:
    """Set, for an administrator, the adapter of all requests that name none."""
    check_admin(exchange.caller, "set the adapter of others")
    lora = read_lora(await exchange.field_list(FIELD)) or ()
    gateway.models.usual_adapter = chosen(lora, await gateway.status())
    await exchange.respond_json({"success": True})


async def load_model(gateway: Gateway, exchange: Exchange) -> None:
    """Load a model, for an administrator."""
    check_admin(exchange.caller, "load models")
    await gateway.administration.use(await _named(gateway, exchange))
    await exchange.respond_json({"success": True})


async def unload_model(gateway: Gateway, exchange: Exchange) -> None:
    """Unload the model, for an administrator."""
    check_admin(exchange.caller, "unload models")
    name = await _named(gateway, exchange)
    status = await gateway.status()
    if status.model is None or status.model.name != name:
        raise HttpError(400, "NOT_LOADED", f"model {name!r} is not loaded", field="model")
    await gateway.administration.unload()
    await exchange.respond_json({"success": True})


async def _named(gateway: Gateway, exchange: Exchange) -> str:
    """Return the model that a body names. Raises HttpError."""
    wanted = (await exchange.fields()).text("model") or ""
    found = await gateway.models.find(wanted)
    if found is None:
        message = f"model {wanted[:128]!r} not found"
        raise HttpError(404, "MODEL_NOT_FOUND", message, field="model")
    return found


async def unsupported(gateway: Gateway, exchange: Exchange) -> None:
    """Say of an address that nothing is behind it."""
    raise HttpError(501, "NOT_SUPPORTED", f"{exchange.path} is not supported")


_RERANK = ("/rerank", "/v1/rerank", "/v2/rerank", "/reranking", "/v1/reranking")

API = Api(
    (
        Route("GET", "/health", health, is_public=True),
        Route("GET", "/v1/health", health, is_public=True),
        Route("GET", "/props", props),
        Route("GET", "/slots", list_slots),
        Route("GET", "/metrics", metrics),
        Route("POST", "/tokenize", tokenize),
        Route("POST", "/detokenize", detokenize),
        Route("GET", "/lora-adapters", list_adapters),
        Route("POST", "/lora-adapters", set_adapters),
        Route("POST", "/models/load", load_model),
        Route("POST", "/models/unload", unload_model),
        Route("POST", "/completion", complete),
        Route("POST", "/completions", complete),
        *(Route("POST", path, rerank) for path in _RERANK),
        Route("POST", "/embedding", embed),
        Route("POST", "/infill", unsupported),
    ),
    error_body,
)
