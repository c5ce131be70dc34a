"""The addresses of Ollama's API."""

import contextlib
from typing import Any

from llamad_client import ClientError, Embedding, ModelDetails
from llamad_http.adapters import loaded_adapters
from llamad_http.administration import check_admin
from llamad_http.errors import HttpError, refusal_of_file
from llamad_http.exchange import Exchange, dump
from llamad_http.fields import Fields
from llamad_http.gateway import Gateway
from llamad_http.models import plain_name
from llamad_http.ollama.completions import is_streamed, read_chat, read_generate, required_model
from llamad_http.ollama.models import process, pull_line, show, tag
from llamad_http.ollama.options import check_keep_alive
from llamad_http.ollama.times import rfc3339
from llamad_http.routes import Api, Route
from llamad_http.vectors import read_pooling

API_VERSION = "0.12.0"  # of the Ollama whose answers these are; programs compare it


async def version(gateway: Gateway, exchange: Exchange) -> None:
    """Answer with the version of the API."""
    await exchange.respond_json({"version": API_VERSION})


async def tags(gateway: Gateway, exchange: Exchange) -> None:
    """Answer with all models."""
    await exchange.respond_json({"models": [tag(model) for model in await _all(gateway)]})


async def running(gateway: Gateway, exchange: Exchange) -> None:
    """Answer with the loaded model."""
    loaded = [process(model) for model in await _all(gateway) if model.loaded]
    await exchange.respond_json({"models": loaded})


async def describe(gateway: Gateway, exchange: Exchange) -> None:
    """Answer with one model."""
    wanted = required_model(await exchange.fields())
    found = await gateway.models.entry(wanted)
    if found is None:
        raise _not_found(wanted)
    name = found.name
    if found.is_adapter:  # which is what it changes, to a program
        async with gateway.models.through(exchange, wanted, any_name=False) as target:
            name = target.model
    await exchange.respond_json(show(await _details(gateway, name)))


async def chat(gateway: Gateway, exchange: Exchange) -> None:
    """Answer a conversation; without messages, load or unload."""
    body = await exchange.fields()
    if not body.get("messages"):
        await _load(gateway, exchange, body, {"message": {"role": "assistant", "content": ""}})
    else:
        await gateway.complete(exchange, read_chat(body), any_name=False)


async def generate(gateway: Gateway, exchange: Exchange) -> None:
    """Continue a text; without one, load or unload."""
    body = await exchange.fields()
    if not body.get("prompt"):
        await _load(gateway, exchange, body, {"response": ""})
    else:
        await gateway.complete(exchange, read_generate(body), any_name=False)


async def pull(gateway: Gateway, exchange: Exchange) -> None:
    """Fetch a model, for an administrator; one that is there already is no work for anybody."""
    body = await exchange.fields()
    wanted = required_model(body)
    streamed = is_streamed(body)
    if await gateway.models.find(wanted) is None:
        check_admin(exchange.caller, "fetch models: `llamactl pull` does it for administrators")
        name = (
            wanted if wanted.startswith("hf.co/") else plain_name(gateway.models.true_name(wanted))
        )
        await exchange.unless_gone(_pull(gateway, exchange, name, streamed=streamed))
    if exchange.status is None:
        kind = "application/x-ndjson" if streamed else "application/json"
        await exchange.respond(pull_line(wanted, None, "success"), kind)


async def _pull(gateway: Gateway, exchange: Exchange, name: str, *, streamed: bool) -> None:
    """Fetch a model and tell how far it is. Raises HttpError until the answer has begun."""
    last = pull_line(name, None, f"pulling {name}")
    try:
        async with contextlib.aclosing(gateway.administration.pull(name)) as steps:
            async for progress in steps:
                if not streamed:
                    continue
                if exchange.status is None:
                    await exchange.begin_stream("application/x-ndjson")
                if progress is not None:
                    last = pull_line(name, progress, f"pulling {name}")
                await exchange.write(last)
    except HttpError as error:
        if exchange.status is None:
            raise
        exchange.remark = error.reason
        await exchange.write(dump(error_body(error)) + b"\n")
    else:
        if exchange.status is not None:
            await exchange.write(pull_line(name, None, "success"))
    if exchange.status is not None:
        await exchange.end_stream()


async def delete(gateway: Gateway, exchange: Exchange) -> None:
    """Delete a model, for an administrator."""
    check_admin(exchange.caller, "delete models")
    wanted = required_model(await exchange.fields())
    found = await gateway.models.find(wanted)
    if found is None:
        raise _not_found(wanted)
    await gateway.administration.remove(found)
    await exchange.respond(b"", "text/plain")


async def copy(gateway: Gateway, exchange: Exchange) -> None:
    """Say to an administrator how a model gets another name."""
    check_admin(exchange.caller, "give models other names")
    message = "copy is not answered: [aliases] in /etc/llamad/http.toml gives a model another name"
    raise HttpError(501, "NOT_SUPPORTED", message)


async def refused(gateway: Gateway, exchange: Exchange) -> None:
    """Say of an address that models are managed by llamactl."""
    message = f"{exchange.path} is not answered: models are managed with llamactl"
    raise HttpError(403, "NOT_MANAGED_HERE", message)


async def embed(gateway: Gateway, exchange: Exchange) -> None:
    """Answer with the vectors of texts."""
    body = await exchange.fields()
    vectors = await _vectors(gateway, exchange, body, body.texts("input"))
    counted = sum(vector.tokens for vector in vectors)
    await exchange.respond_json(
        {
            "model": required_model(body),
            "embeddings": [list(vector.values) for vector in vectors],
            "prompt_eval_count": counted,
        }
    )


async def embed_one(gateway: Gateway, exchange: Exchange) -> None:
    """Answer with the vector of a text, as older programs ask for it."""
    body = await exchange.fields()
    (vector,) = await _vectors(gateway, exchange, body, [body.text("prompt") or ""])
    await exchange.respond_json({"embedding": list(vector.values)})


async def _vectors(
    gateway: Gateway, exchange: Exchange, body: Fields, texts: list[str]
) -> list[Embedding]:
    _, vectors = await gateway.embed(
        exchange,
        required_model(body),
        texts,
        truncate=body.flag("truncate") is not False,
        any_name=False,
        dimensions=body.integer("dimensions", 0, 2**32 - 1) or None,  # 0: all, as Ollama's
        pooling=read_pooling(body),
    )
    return vectors


def error_body(error: HttpError) -> dict[str, Any]:
    """Return the JSON of an error."""
    return {"error": error.message}


async def _all(gateway: Gateway) -> list[ModelDetails]:
    """Return all models that can be read; one that cannot is no model to a program."""
    found = []
    for model in await gateway.models.entries():
        if model.is_adapter:
            continue
        try:
            found.append(await _details(gateway, model.name))
        except HttpError as error:
            if error.status == 503:
                raise
    return found


async def _details(gateway: Gateway, name: str) -> ModelDetails:
    try:
        return await gateway.client.get_model(name)
    except ClientError as error:
        raise refusal_of_file(error) from None


async def _load(
    gateway: Gateway, exchange: Exchange, body: Fields, content: dict[str, Any]
) -> None:
    """Answer a request without a text: the model is loaded, or unloaded for an administrator.

    As Ollama's, the answer is one object also where a stream was asked for.

    To everybody else it is said that it was unloaded, as programs expect, and it stays.
    """
    wanted = required_model(body)
    if check_keep_alive(body):
        name, reason = await _unload(gateway, exchange, wanted), "unload"
    else:
        reason = "load"
        async with gateway.models.through(exchange, wanted, any_name=False) as target:
            name = target.shown
    if not name:
        raise HttpError(503, "NO_MODEL", "no model is loaded", retry_after_seconds=2)
    answer = {"model": name, "created_at": rfc3339(), **content}
    await exchange.respond_json({**answer, "done": True, "done_reason": reason})


async def _unload(gateway: Gateway, exchange: Exchange, wanted: str) -> str:
    """Unload a model for an administrator, where it is loaded; return its name."""
    found = await gateway.models.entry(wanted)
    if found is None:
        raise _not_found(wanted)
    if exchange.caller.is_admin:
        status = await gateway.status()
        loaded = [] if status.model is None else [status.model.name, *loaded_adapters(status)]
        if found.name in loaded:
            await gateway.administration.unload()
    return found.name


def _not_found(name: str) -> HttpError:
    return HttpError(404, "MODEL_NOT_FOUND", f"model {name[:128]!r} not found", field="model")


API = Api(
    (
        Route("GET", "/api/version", version, is_public=True),
        Route("GET", "/api/tags", tags),
        Route("GET", "/api/ps", running),
        Route("POST", "/api/show", describe),
        Route("POST", "/api/chat", chat),
        Route("POST", "/api/generate", generate),
        Route("POST", "/api/pull", pull),
        Route("POST", "/api/embed", embed),
        Route("POST", "/api/embeddings", embed_one),
        Route("POST", "/api/create", refused),
        Route("POST", "/api/copy", copy),
        Route("POST", "/api/push", refused),
        Route("DELETE", "/api/delete", delete),
    ),
    error_body,
)
