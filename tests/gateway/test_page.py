"""The gateway's own page: what a browser gets at ``/``; it needs nothing from elsewhere."""

import re
import urllib.request

import pytest

from gateway.gateway_process import GatewayProcess
from llamad_http.page.api import FOLDER, POLICY
from unit.schedule.fakes import TIMEOUT_SECONDS


def get(gateway: GatewayProcess, path: str) -> tuple[str, str, str]:
    """Return body, content type and policy."""
    request = urllib.request.Request(gateway.url + path, headers={"Accept": "text/html,*/*"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
        headers = answer.headers
        return (
            answer.read().decode(),
            headers["content-type"],
            headers.get("content-security-policy", ""),
        )


def test_a_browser_gets_the_page_and_all_that_it_names(demo_gateway: GatewayProcess) -> None:
    page, kind, policy = get(demo_gateway, "/")
    assert kind == "text/html; charset=utf-8"
    assert policy == POLICY
    named = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert named == ["page.css", "data:,", "page.js"]
    assert get(demo_gateway, "/page.css")[1] == "text/css; charset=utf-8"
    assert get(demo_gateway, "/page.js")[1] == "text/javascript; charset=utf-8"


def test_the_program_uses_elements_that_are_there_and_no_html_from_a_model() -> None:
    page = (FOLDER / "index.html").read_text()
    program = (FOLDER / "page.js").read_text()
    used = set(re.findall(r'byId\("(\w+)"\)', program))
    assert used <= set(re.findall(r'id="(\w+)"', page))
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(", program)
    assert "onclick" not in page  # the policy would refuse it
    assert not re.search(r"https?://", page + program)


@pytest.mark.parametrize("path", ["health", "props", "slots", "v1/models"])
def test_what_the_program_asks_is_answered(demo_gateway: GatewayProcess, path: str) -> None:
    assert f'"{path}"' in (FOLDER / "page.js").read_text()
    assert get(demo_gateway, f"/{path}")[1] == "application/json"
