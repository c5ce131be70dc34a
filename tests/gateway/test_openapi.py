"""``/openapi.json`` describes what is there, and nothing else."""

import json
import urllib.request

from gateway.gateway_process import GatewayProcess
from llamad_http.all_routes import all_routes
from llamad_http.openapi.bodies import BODIES
from unit.schedule.fakes import TIMEOUT_SECONDS


def test_every_address_that_is_described_is_answered(demo_gateway: GatewayProcess) -> None:
    url = demo_gateway.url + "/openapi.json"
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:
        described = json.load(answer)
    assert described["openapi"] == "3.1.0"
    routes = all_routes()
    found = set()
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            route, _ = routes.find(method.upper(), path.replace("{id}", "x"))
            found.add(route.handler.__name__)
            assert operation["summary"].endswith("."), path
            assert (method == "get") != ("requestBody" in operation), path
            assert ("security" in operation) == route.is_public
    assert {"chat", "create", "respond", "tokenize", "pull", "root"} <= found
    assert set(BODIES) <= set(described["paths"])


def test_every_address_is_described_once_or_says_that_it_is_not_supported() -> None:
    routes = all_routes()
    described = routes.find("GET", "/openapi.json")[0]
    assert described.is_public
    assert routes.find("POST", "/infill")[0].handler.__name__ == "unsupported"
