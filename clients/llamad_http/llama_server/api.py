"""The addresses of llama-server that are nobody else's."""

from llamad_http.errors import HttpError
from llamad_http.exchange import Exchange
from llamad_http.gateway import Gateway
from llamad_http.llama_server.errors import error_body
from llamad_http.routes import Api, Route


async def health(gateway: Gateway, exchange: Exchange) -> None:
    """Answer whether a model is served."""
    status = await gateway.status()
    if status.state != "ready":
        loading = status.state == "loading"
        message = "Loading model" if loading else status.detail or status.state.replace("_", " ")
        raise HttpError(503, "NOT_READY", message, retry_after_seconds=2 if loading else None)
    await exchange.respond_json({"status": "ok"})


API = Api(
    (
        Route("GET", "/health", health, is_public=True),
        Route("GET", "/v1/health", health, is_public=True),
    ),
    error_body,
)
