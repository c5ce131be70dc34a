"""Which path is answered by what. Owns the search; ``all_routes.py`` has the APIs."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from llamad_http.errors import HttpError
from llamad_http.exchange import Exchange
from llamad_http.gateway import Gateway

Handler = Callable[[Gateway, Exchange], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Route:
    """How a path is answered. A path that ends in ``/*`` is a beginning."""

    method: str
    path: str
    handler: Handler
    is_public: bool = False
    """Whether it is answered without an API key."""


@dataclass(frozen=True, slots=True)
class Api:
    """Routes, and the JSON of their errors."""

    routes: tuple[Route, ...]
    error: Callable[[HttpError], Any]


class Routes:
    """All routes of all APIs."""

    def __init__(self, apis: tuple[Api, ...], prefixes: dict[str, Api]) -> None:
        """``prefixes``: whose error is told for a path that nobody has, by its beginning."""
        self._exact = {(r.method, r.path): (r, api) for api in apis for r in api.routes}
        self._prefixes = prefixes

    def find(self, method: str, path: str) -> tuple[Route, Api]:
        """Return the route of a request and its API. Raises HttpError."""
        found = self._exact.get((method, path))
        if found is None:
            found = self._exact.get((method, path.rpartition("/")[0] + "/*"))
        if found is not None:
            return found
        methods = sorted({m for m, known in self._exact if known == path})
        if methods:
            message = f"{method} {path[:200]}: only {', '.join(methods)} is answered here"
            raise HttpError(405, "METHOD_NOT_ALLOWED", message)
        raise HttpError(404, "NOT_FOUND", f"{method} {path[:200]}: there is no such address")

    def api_of(self, method: str, path: str) -> Api:
        """Return the API that a path belongs to, for its errors."""
        try:
            return self.find(method, path)[1]
        except HttpError:
            fitting = [p for p in self._prefixes if path.startswith(p)] or ["/"]
            return self._prefixes[max(fitting, key=len)]
