"""Fixtures of the voice tests: a service over a fake engine, and a gateway before it."""

from collections.abc import Iterator

import pytest

from clients.running import RunningService, running_service
from gateway.gateway_process import GatewayProcess, gateway_process
from unit.schedule.fakes import saying

PROGRAM = "llamad_wyoming"
CONFIG = """
[answers]
system = "Be short."
conversation_turns = 2
[limits]
max_connections_per_address = 40
event_seconds = 600
"""


@pytest.fixture(scope="session")
def service() -> Iterator[RunningService]:
    """Return a service over a fake engine."""
    with running_service() as running:
        running.engine.rule = saying("It is noon.")
        yield running


@pytest.fixture(scope="session")
def gateway(
    service: RunningService, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """Return a gateway with narrow limits."""
    folder = tmp_path_factory.mktemp("gateway")
    with gateway_process(folder, service.path, CONFIG, PROGRAM) as running:
        yield running
