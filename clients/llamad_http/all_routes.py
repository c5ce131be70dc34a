"""Every API, and whose errors are told where: the one place that knows them all."""

from llamad_http import __version__
from llamad_http.anthropic.api import API as ANTHROPIC
from llamad_http.llama_server.api import API as LLAMA_SERVER
from llamad_http.ollama.api import API as OLLAMA
from llamad_http.openai.api import API as OPENAI
from llamad_http.openapi.api import openapi
from llamad_http.page.api import API as PAGE
from llamad_http.routes import Routes


def all_routes() -> Routes:
    """Return the routes of all APIs."""
    apis = (OPENAI, ANTHROPIC, OLLAMA, LLAMA_SERVER, PAGE)
    return Routes(
        (*apis, openapi(apis, __version__)),
        {"/": OPENAI, "/v1/messages": ANTHROPIC, "/api/": OLLAMA},
    )
