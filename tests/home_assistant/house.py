"""A Home Assistant process with one lamp, driven over its REST interface as its pages drive it."""

import contextlib
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from home_assistant.installation import ENVIRONMENT

URL = "http://127.0.0.1:8123"  # its default; another port would have to be confirmed on a page
PATIENCE_SECONDS = 240.0  # for a start, and for an answer of the model
LAMP = "light.kitchen"

CONFIGURATION = f"""
http:
api:
config:
onboarding:
conversation:
input_boolean:
  kitchen:
    name: Kitchen switch
template:
  - light:
      - name: Kitchen
        default_entity_id: {LAMP}
        unique_id: kitchen
        state: "{{{{ is_state('input_boolean.kitchen', 'on') }}}}"
        turn_on:
          - action: input_boolean.turn_on
            target: {{entity_id: input_boolean.kitchen}}
        turn_off:
          - action: input_boolean.turn_off
            target: {{entity_id: input_boolean.kitchen}}
logger:
  default: warning
"""


class HouseError(Exception):
    """Home Assistant refused something; the text has its answer."""


class House:
    """A Home Assistant that was set up with one user and one lamp."""

    def __init__(self, root: Path) -> None:
        folder = root / "config"
        shutil.rmtree(folder, ignore_errors=True)  # its storage would override the configuration
        folder.mkdir()
        (folder / "configuration.yaml").write_text(CONFIGURATION)
        self.log = folder / "output"
        command = ("chroot", root, f"{ENVIRONMENT}/bin/hass", "--config", "/config", "--skip-pip")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        self._token = ""

    def close(self) -> None:
        """End the process."""
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    # ---- REST ---------------------------------------------------------------------------------

    def call(self, method: str, path: str, body: Any = None, *, form: bool = False) -> Any:
        """Return the answer to a request. Raises HouseError."""
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        data = None
        if body is not None:
            data = urllib.parse.urlencode(body).encode() if form else json.dumps(body).encode()
            kind = "application/x-www-form-urlencoded" if form else "application/json"
            headers["Content-Type"] = kind
        request = urllib.request.Request(URL + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise HouseError(f"{method} {path}: {error.code} {error.read().decode()}") from None

    def settle_in(self) -> None:
        """Make the first user, and wait until everything has started."""
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                steps = self.call("GET", "/api/onboarding")
                break
            except (OSError, HouseError):
                if self.process.poll() is not None or time.monotonic() > end:
                    raise HouseError(self.log.read_text()) from None
                time.sleep(0.5)
        assert not any(step["done"] for step in steps), steps
        client = f"{URL}/"
        user = {"name": "Ada", "username": "ada", "password": "secret", "language": "en"}
        made = self.call("POST", "/api/onboarding/users", {"client_id": client, **user})
        grant = {"grant_type": "authorization_code", "code": made["auth_code"], "client_id": client}
        self._token = self.call("POST", "/auth/token", grant, form=True)["access_token"]
        while self.call("GET", "/api/config")["state"] != "RUNNING":
            time.sleep(0.5)

    def flow(self, kind: str, handler: Any, *answers: dict[str, Any]) -> dict[str, Any]:
        """Answer the forms of a flow one after the other; return what it made.

        kind: ``flow`` or ``subentries/flow``. Raises HouseError where a form is shown again.
        """
        path = f"/api/config/config_entries/{kind}"
        step = self.call("POST", path, {"handler": handler})
        for answer in answers:
            if step["type"] != "form" or step.get("errors"):
                break
            step = self.call("POST", f"{path}/{step['flow_id']}", answer)
            while step["type"].startswith("progress"):  # it asks the gateway for the model
                time.sleep(0.2)
                step = self.call("GET", f"{path}/{step['flow_id']}")
        if step["type"] != "create_entry":
            raise HouseError(f"{handler}: {step}")
        return dict(step)

    def add_integration(self, domain: str, *answers: dict[str, Any]) -> str:
        """Set up an integration by its forms; return the id of its entry."""
        return str(self.flow("flow", domain, *answers)["result"]["entry_id"])

    def add_part(self, entry: str, kind: str, answer: dict[str, Any]) -> None:
        """Add a part to an integration: an agent for conversations, or for tasks."""
        entries = "/api/config/config_entries/entry"
        while {e["entry_id"]: e["state"] for e in self.call("GET", entries)}[entry] != "loaded":
            time.sleep(0.2)
        self.flow("subentries/flow", [entry, kind], answer)

    def reload(self, entry: str) -> None:
        """Load an integration once more."""
        self.call("POST", f"/api/config/config_entries/entry/{entry}/reload")

    def entities(self, domain: str) -> set[str]:
        """Return the ids of the entities of a domain."""
        names = {state["entity_id"] for state in self.call("GET", "/api/states")}
        return {name for name in names if name.startswith(domain + ".")}

    def state(self, entity: str) -> str:
        """Return the state of an entity."""
        return str(self.call("GET", f"/api/states/{entity}")["state"])

    def act(self, action: str, data: dict[str, Any]) -> None:
        """Call an action: ``light.turn_off``."""
        self.call("POST", f"/api/services/{action.replace('.', '/')}", data)

    def ask(self, agent: str, text: str, conversation: str | None = None) -> "Reply":
        """Say something to an agent."""
        body = {"text": text, "agent_id": agent, "language": "en"}
        if conversation:
            body["conversation_id"] = conversation
        return Reply(self.call("POST", "/api/conversation/process", body))


class Reply:
    """What an agent answered."""

    def __init__(self, answer: dict[str, Any]) -> None:
        response = answer["response"]
        self.kind = str(response["response_type"])
        self.text = str(response["speech"].get("plain", {}).get("speech", ""))
        self.conversation = str(answer["conversation_id"])

    def __str__(self) -> str:
        return f"{self.kind}: {self.text[:200]!r}"


@contextlib.contextmanager
def house_of(root: Path) -> Iterator[House]:
    """Run a Home Assistant."""
    house = House(root)
    try:
        house.settle_in()
        yield house
    finally:
        house.close()
