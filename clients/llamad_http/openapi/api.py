"""``/openapi.json``: every address of every API, from the table of routes itself.

An address that is answered with and without ``/v1`` is described with it; what answers only that it
is not supported is left out.
"""

from collections.abc import Sequence
from typing import Any

from llamad_http.errors import HttpError
from llamad_http.exchange import Exchange
from llamad_http.gateway import Gateway
from llamad_http.openapi.bodies import BODIES, OBJECT
from llamad_http.routes import Api, Route

_LEFT_OUT = "unsupported"  # the name of handlers that have nothing behind them
_JSON = {"application/json": {"schema": OBJECT}}
_TYPES = (
    *("application/json", "application/x-ndjson", "text/event-stream"),
    *("text/plain", "text/html", "text/css", "text/javascript"),
)


def document(apis: Sequence[Api], version: str) -> dict[str, Any]:
    """Return the description of the routes of all APIs. version: of the gateway."""
    paths: dict[str, dict[str, Any]] = {}
    routes = [route for api in apis for route in api.routes]
    known = {(route.method, route.path, route.handler) for route in routes}
    for route in routes:
        is_short = (route.method, f"/v1{route.path}", route.handler) in known
        if is_short or route.handler.__name__ == _LEFT_OUT:
            continue
        operation = _operation(route)
        if route.path.endswith("/*"):
            operation["parameters"] = [
                {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
            ]
        paths.setdefault(_path(route), {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "llamad-http",
            "version": version,
            "description": "The APIs of OpenAI, Anthropic, Ollama and llama-server on a model of"
            " the service llamad. Fields that are not known are ignored.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            }
        },
        "security": [{}, {"bearer": []}, {"key": []}],
    }


def _path(route: Route) -> str:
    return route.path.replace("/*", "/{id}")


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": (route.handler.__doc__ or "").partition("\n")[0],
        "responses": {
            "200": {"description": "The answer.", "content": {kind: {} for kind in _TYPES}},
            "default": {"description": "An error, in the API's shape.", "content": _JSON},
        },
    }
    if route.is_public:
        operation["security"] = []
    body = BODIES.get(route.path)
    if body is not None and route.method != "GET":
        content = {"application/json": {"schema": body}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def openapi(apis: Sequence[Api], version: str) -> Api:
    """Return the API with the address of the description."""
    described = document(apis, version)

    async def describe(gateway: Gateway, exchange: Exchange) -> None:
        """Answer with this description."""
        await exchange.respond_json(described)

    return Api((Route("GET", "/openapi.json", describe, is_public=True),), _error)


def _error(error: HttpError) -> dict[str, Any]:
    return {"error": {"message": error.message}}
