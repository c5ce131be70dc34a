"""Fixtures: services with the demo model and over a fake engine, each with a gateway before it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients.daemon_process import Daemon, daemon
from clients.running import RunningService, running_service
from gateway.gateway_process import GatewayProcess, gateway_process
from llamad.text.thinking import ThinkingMarks

DEMO_MODEL = Path(__file__).resolve().parents[2] / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="session")
def demo_service() -> Iterator[Daemon]:
    """Return a service that has loaded the demo model."""
    with (
        tempfile.TemporaryDirectory() as name,
        daemon(
            Path(name), "--model", str(DEMO_MODEL), "--threads", "2", "--ctx-size", "1024"
        ) as service,
    ):
        service.wait_until_ready()
        yield service


@pytest.fixture(scope="session")
def demo_gateway(demo_service: Daemon) -> Iterator[GatewayProcess]:
    """Return a gateway before that service, with the default configuration."""
    with (
        tempfile.TemporaryDirectory() as name,
        gateway_process(Path(name), demo_service.socket) as gateway,
    ):
        yield gateway


@pytest.fixture(scope="module")
def service() -> Iterator[RunningService]:
    """Return a service over a fake engine, whose model may think."""
    with running_service() as running:
        running.service.bench.model.thinking = ThinkingMarks((("<think>", "</think>"),))
        yield running


@pytest.fixture(scope="module")
def gateway(
    service: RunningService, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """Return a gateway before it, with the default configuration."""
    with gateway_process(tmp_path_factory.mktemp("gateway"), service.path) as running:
        yield running
