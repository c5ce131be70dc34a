"""``/``: for a browser the page, for a program the words that programs look for.

The page is three files without a build step and without anything from elsewhere; its policy allows
it nothing else. It uses the addresses that every other program uses.
"""

from functools import cache
from pathlib import Path
from typing import Any

from llamad_http.errors import HttpError
from llamad_http.exchange import Exchange
from llamad_http.gateway import Gateway
from llamad_http.routes import Api, Route

FOLDER = Path(__file__).parent / "static"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
ALIVE = b"Ollama is running"  # as Ollama says; credential tests read it


@cache
def page_file(name: str) -> bytes:
    """Return a file of the page."""
    return (FOLDER / name).read_bytes()


async def root(gateway: Gateway, exchange: Exchange) -> None:
    """Answer a browser with the page, and everybody else with what Ollama says."""
    if "text/html" in exchange.headers.get("accept", ""):
        await _send(exchange, "index.html")
    else:
        await exchange.respond(ALIVE, "text/plain; charset=utf-8")


async def script(gateway: Gateway, exchange: Exchange) -> None:
    """Answer with the page's program."""
    await _send(exchange, "page.js")


async def style(gateway: Gateway, exchange: Exchange) -> None:
    """Answer with the page's style."""
    await _send(exchange, "page.css")


async def _send(exchange: Exchange, name: str) -> None:
    exchange.extra_headers |= {
        "content-security-policy": POLICY,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
    }
    await exchange.respond(page_file(name), TYPES[Path(name).suffix])


def error_body(error: HttpError) -> dict[str, Any]:
    """Return the JSON of an error."""
    return {"error": {"message": error.message}}


API = Api(
    (
        Route("GET", "/", root, is_public=True),
        Route("GET", "/page.js", script, is_public=True),
        Route("GET", "/page.css", style, is_public=True),
    ),
    error_body,
)
