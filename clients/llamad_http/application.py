"""The ASGI application: checks, then the handler, then the line in the journal.

The order is fixed here and nowhere else: Host and Origin, the key, then the route's handler.
Nothing of a request's body is read before that.
"""

import logging
import time
from collections.abc import Mapping
from typing import Any

from llamad_http.authorization import Authorization, Origins
from llamad_http.config import Config
from llamad_http.errors import HttpError
from llamad_http.exchange import BodyBudget, ClientGoneError, Exchange, Receive, Send, dump
from llamad_http.gateway import Gateway
from llamad_http.routes import Routes

log = logging.getLogger(__name__)

CORS_METHODS = "GET, POST, OPTIONS"
CORS_HEADERS = "authorization, content-type, x-api-key, llamad-priority"


MAX_HEAD_BYTES = 32 << 10  # h11 has this limit, too, for a head that comes in pieces


class Application:
    """What uvicorn calls for each request."""

    def __init__(
        self,
        config: Config,
        gateway: Gateway,
        routes: Routes,
        authorization: Authorization,
        origins: Origins,
    ) -> None:
        self._config = config
        self._gateway = gateway
        self._routes = routes
        self._authorization = authorization
        self._origins = origins
        self._budget = BodyBudget(
            config.max_body_bytes, config.max_bodies_bytes, config.body_seconds
        )

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        exchange = Exchange(scope, receive, send, self._budget, self._config.write_seconds)
        began = time.monotonic()
        try:
            await self._answer(exchange)
        except ClientGoneError:
            exchange.remark = exchange.remark or "client left"
        finally:
            exchange.release_body()
            self._note(exchange, time.monotonic() - began)

    async def _answer(self, exchange: Exchange) -> None:
        try:
            _check_head(exchange)
            self._check_origin(exchange)
            if exchange.method == "OPTIONS":
                await exchange.respond(b"", "text/plain", 204)
                return
            route, _ = self._routes.find(exchange.method, exchange.path)
            if not route.is_public:
                exchange.caller = self._authorization.caller(exchange.headers)
            await route.handler(self._gateway, exchange)
        except HttpError as error:
            await self._refuse(exchange, error)
        except (ClientGoneError, GeneratorExit):
            raise
        except Exception:
            log.exception("%s %r failed", exchange.method, exchange.path)
            await self._refuse(exchange, HttpError(500, "INTERNAL", "an error in the gateway"))

    def _check_origin(self, exchange: Exchange) -> None:
        """Check Host and Origin of what came over TCP; a Unix socket has no browsers."""
        if exchange.scope.get("client") is None:
            return
        self._origins.check(exchange.headers)
        origin = exchange.headers.get("origin")
        if origin is not None and self._origins.allows(origin):
            exchange.extra_headers |= {
                "access-control-allow-origin": origin,
                "access-control-allow-methods": CORS_METHODS,
                "access-control-allow-headers": CORS_HEADERS,
                "vary": "origin",
            }

    async def _refuse(self, exchange: Exchange, error: HttpError) -> None:
        exchange.remark = error.reason
        if exchange.status is not None:  # too late: only the end of the connection can tell
            raise ClientGoneError
        if error.retry_after_seconds is not None:
            exchange.extra_headers["retry-after"] = f"{max(1, round(error.retry_after_seconds))}"
        elif error.status in (409, 429) or error.status >= 500:
            exchange.extra_headers["x-should-retry"] = "false"  # of openai's libraries
        if error.status == 401:
            exchange.extra_headers["www-authenticate"] = "Bearer"
        api = self._routes.api_of(exchange.method, exchange.path)
        await exchange.respond(dump(api.error(error)), "application/json", error.status)

    def _note(self, exchange: Exchange, seconds: float) -> None:
        log.info(
            "%s %s status=%s seconds=%.3f owner=%s %s",
            exchange.method,
            ascii(exchange.path)[1:-1][:100],
            exchange.status or "-",
            seconds,
            exchange.caller.owner or "-",
            exchange.remark,
        )


def _check_head(exchange: Exchange) -> None:
    """Raise HttpError for a head that is too large or gives two lengths; end its connection."""
    scope = exchange.scope
    n_bytes = len(scope["raw_path"]) + len(scope["query_string"])
    n_bytes += sum(len(name) + len(value) for name, value in scope["headers"])
    if n_bytes > MAX_HEAD_BYTES:
        exchange.extra_headers["connection"] = "close"
        raise HttpError(431, "HEAD_TOO_LARGE", f"the head has more than {MAX_HEAD_BYTES} bytes")
    if {"content-length", "transfer-encoding"} <= exchange.headers.keys():  # RFC 9112, 6.1
        exchange.extra_headers["connection"] = "close"
        raise HttpError(400, "TWO_LENGTHS", "both Content-Length and Transfer-Encoding are there")
