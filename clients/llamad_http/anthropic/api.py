"""The addresses of Anthropic's API."""

from llamad_http.anthropic.errors import error_body
from llamad_http.anthropic.request import read_conversation, read_request
from llamad_http.exchange import Exchange
from llamad_http.gateway import Gateway
from llamad_http.routes import Api, Route


async def create(gateway: Gateway, exchange: Exchange) -> None:
    """Answer a conversation."""
    await gateway.complete(exchange, read_request(await exchange.fields()), any_name=True)


async def count_tokens(gateway: Gateway, exchange: Exchange) -> None:
    """Answer with the tokens that a conversation is to the model."""
    request = read_conversation(await exchange.fields())
    rendered = await gateway.render(exchange, request)
    await exchange.respond_json({"input_tokens": len(rendered.tokens)})


API = Api(
    (
        Route("POST", "/v1/messages", create),
        Route("POST", "/v1/messages/count_tokens", count_tokens),
    ),
    error_body,
)
