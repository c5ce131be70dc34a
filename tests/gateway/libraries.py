"""Clients of the unmodified libraries: each asks a gateway once, and waits as long as a test."""

import anthropic
import openai

from gateway.gateway_process import GatewayProcess
from unit.schedule.fakes import TIMEOUT_SECONDS


def openai_of(gateway: GatewayProcess, key: str = "none") -> openai.OpenAI:
    """Return a client of openai's library."""
    return openai.OpenAI(
        base_url=gateway.url + "/v1", api_key=key, max_retries=0, timeout=TIMEOUT_SECONDS
    )


def anthropic_of(gateway: GatewayProcess) -> anthropic.Anthropic:
    """Return a client of anthropic's library."""
    return anthropic.Anthropic(
        base_url=gateway.url, api_key="none", max_retries=0, timeout=TIMEOUT_SECONDS
    )
