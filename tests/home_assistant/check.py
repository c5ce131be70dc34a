"""Home Assistant itself before the gateways: its Ollama, llama.cpp and Wyoming integrations.

Run by `make home-assistant-check`, as root, in a network of its own: Home Assistant looks for what
is around it, and nothing that it finds or opens is of this machine. Each integration is set up
through its forms. The demo model answers, and is there again after a restart; it is too small to
call tools reliably, so the lamp is switched by a scripted model, which recites the call that a
larger one would make. Both go the whole way: service, gateway, Home Assistant.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from clients.daemon_process import Daemon, daemon
from clients.running import RunningService, running_service
from gateway.gateway_process import GatewayProcess, gateway_process
from home_assistant.house import LAMP, House, HouseError, house_of
from home_assistant.installation import VERSION, install
from unit.schedule.fakes import saying

INSIDE = "HOME_ASSISTANT_CHECK_INSIDE"
PROC = "mount -t proc proc"
CALL = '<tool_call>\n{"name": "intent__HassTurnOn", "arguments": {"name": "Kitchen"}}\n</tool_call>'
DONE = "The kitchen light is on."
SCRIPTED_SIZES = {"n_ctx": 32768, "kv_blocks_total": 2048, "n_batch": 512}  # a token a byte
MOOD = {
    "mood": {"selector": {"select": {"options": ["happy", "sad"]}}, "required": True},
    "recommended": {"selector": {"boolean": {}}, "required": True},
}


class Agents:
    """The agents of a Home Assistant, as integrations add them."""

    def __init__(self, house: House) -> None:
        self._known = house.entities("conversation")

    def new(self, house: House) -> str:
        """Return the agent that was added since the last call. Raises AssertionError."""
        wait_for(lambda: bool(house.entities("conversation") - self._known))
        [agent] = house.entities("conversation") - self._known
        self._known.add(agent)
        return agent


def add_ollama(house: House, gateway: GatewayProcess, model: str) -> None:
    """Set up the Ollama integration with an agent that may switch things, and one for tasks."""
    entry = house.add_integration("ollama", {"url": gateway.url})
    options = {"name": "Ollama", "model": model}
    house.add_part(entry, "ai_task_data", options)
    house.add_part(entry, "conversation", {**options, "llm_hass_api": ["assist"]})


def add_llama_cpp(house: House, gateway: GatewayProcess, model: str) -> None:
    """Set up the llama.cpp integration, whose forms add an agent that may switch things."""
    forms = {"base_url": gateway.url + "/v1"}, {"chat_model": model}
    house.add_integration("llama_cpp", *forms)


def add_wyoming(house: House, gateway: GatewayProcess, _: str) -> None:
    """Set up the Wyoming integration, whose agent only answers."""
    house.add_integration("wyoming", {"host": "127.0.0.1", "port": gateway.port})


class Check:
    """The steps, each of which passes or fails, and a line for each."""

    def __init__(self) -> None:
        self.failures = 0

    def step(self, name: str, run: Callable[[], object]) -> None:
        """Run a step and say how it went."""
        began = time.monotonic()
        try:
            said = run()
        except (HouseError, AssertionError, OSError) as error:
            self.failures += 1
            print(f"FAILED  {name}: {error}", flush=True)
        else:
            more = f": {said}" if said else ""
            print(f"passed  {name} ({time.monotonic() - began:.1f} s){more}", flush=True)


def recite(service: RunningService) -> None:
    """Let the scripted model call the tool, and say that it is done once it hears of the result."""

    def rule(history: tuple[int, ...], seed: int, draw: int) -> int:
        prompt = bytes(history[: len(history) - draw])
        answered = prompt.rpartition(b"|user:")[2].find(b"|tool:") >= 0
        return saying(DONE if answered else CALL)(history, seed, draw)

    service.engine.rule = rule


def check_lamp(house: House, agent: str) -> str:
    """Let an agent switch the lamp on, by a call of the scripted model."""
    house.act("light.turn_off", {"entity_id": LAMP})
    wait_for(lambda: house.state(LAMP) == "off")
    reply = house.ask(agent, "Turn on the kitchen light")
    assert (reply.kind, reply.text) == ("action_done", DONE), reply
    wait_for(lambda: house.state(LAMP) == "on")
    return str(reply)


def check_two_turns(house: House, agent: str) -> str:
    """Let the demo model answer twice in a conversation that has exposed entities."""
    first = house.ask(agent, "Which lights are there?")
    assert first.kind == "action_done", first
    second = house.ask(agent, "Thank you. Say goodbye.", first.conversation)
    assert second.kind == "action_done", second
    assert second.conversation == first.conversation
    return f"{first.text[:60]!r}, {second.text[:60]!r}"


def check_task(house: House, task: str) -> str:
    """Let a task of the demo model give data that have the form that is asked for."""
    body = {
        "entity_id": task,
        "task_name": "review",
        "instructions": "How does this review feel? 'A lovely evening, five stars!'",
        "structure": MOOD,
    }
    answer = house.call("POST", "/api/services/ai_task/generate_data?return_response", body)
    data = answer["service_response"]["data"]
    assert data["mood"] in ("happy", "sad"), data
    assert data["recommended"] in (True, False), data
    return str(data)


def wait_for(holds: Callable[[], bool]) -> None:
    """Return once something holds. Raises AssertionError."""
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


def check_reply(house: House, agent: str) -> str:
    """Let the demo model answer once."""
    reply = house.ask(agent, "Say hello.")
    assert reply.kind == "action_done", reply
    assert reply.text
    return str(reply)


def check_no_service(house: House, agent: str) -> str:
    """Ask while no service runs: that is an error.

    Home Assistant's Ollama integration does not catch what a server refuses before it streams, so
    there the whole request fails.
    """
    try:
        reply = house.ask(agent, "Say hello.")
    except HouseError as error:
        if ": 500 " not in str(error):
            raise
        return "Internal Server Error of Home Assistant"
    assert reply.kind == "error", reply
    assert "is not running" in reply.text
    return reply.text


def check_scripted(check: Check, house: House, agents: Agents, gateway: GatewayProcess) -> None:
    """Switch the lamp through the integrations that can."""
    for name, add in (("Ollama", add_ollama), ("llama.cpp", add_llama_cpp)):
        check.step(f"{name}: set up", partial(add, house, gateway, "fake"))
        agent = agents.new(house)
        check.step(f"{name}: the lamp, by a scripted call", partial(check_lamp, house, agent))


def check_demo(
    check: Check, house: House, agents: Agents, gateways: Sequence[GatewayProcess], model: str
) -> dict[str, str]:
    """Let the demo model answer through every integration; return their agents by name."""
    http, wyoming = gateways
    demo = {}
    tasks = house.entities("ai_task")
    for name, add, gateway in (
        ("Ollama", add_ollama, http),
        ("llama.cpp", add_llama_cpp, http),
        ("Wyoming", add_wyoming, wyoming),
    ):
        check.step(f"{name}: set up, demo model", partial(add, house, gateway, model))
        demo[name] = agents.new(house)
        check.step(f"{name}: two turns", partial(check_two_turns, house, demo[name]))
    [task] = house.entities("ai_task") - tasks
    check.step("Ollama: data by a schema", partial(check_task, house, task))
    return demo


def run(root: Path, model: Path) -> int:
    """Run the check; return how many steps failed."""
    check = Check()
    with ExitStack() as stack:

        def folder() -> Path:
            return Path(stack.enter_context(tempfile.TemporaryDirectory()))

        def gateway(socket: Path, program: str = "llamad_http") -> GatewayProcess:
            return stack.enter_context(gateway_process(folder(), socket, "", program))

        place, flags = folder(), ("--model", str(model), "--ctx-size", "4096")
        scripted = stack.enter_context(running_service(**SCRIPTED_SIZES))
        recite(scripted)
        house = stack.enter_context(house_of(root))
        agents = Agents(house)
        check_scripted(check, house, agents, gateway(scripted.path))
        with daemon(place, *flags) as service:
            service.wait_until_ready()
            gateways = gateway(service.socket), gateway(service.socket, "llamad_wyoming")
            demo = check_demo(check, house, agents, gateways, model.stem)
            print(f"        {prompts(service)}", flush=True)
            service.stop()
        for name, agent in demo.items():
            check.step(f"{name}: no service", partial(check_no_service, house, agent))
        with daemon(place, *flags) as service:
            service.wait_until_ready()
            for name, agent in demo.items():
                check.step(f"{name}: after a restart", partial(check_reply, house, agent))
            for line in faults(gateways):
                check.step("gateway", partial(fail, line))
    return check.failures


def prompts(service: Daemon) -> str:
    """Return how long the prompts were that Home Assistant sent, for who chooses a context."""
    printed = service.llamactl("--json", "jobs", "--all").stdout
    lengths = {json.loads(line)["prompt_tokens"] for line in printed.splitlines()}
    return f"tokens of its prompts: {sorted(lengths)}"


def faults(gateways: Sequence[GatewayProcess]) -> list[str]:
    """Return the lines of the gateways that tell of a fault of their own."""
    lines = [line for gateway in gateways for line in gateway.lines]
    return [line for line in lines if "Traceback" in line or "status=500" in line]


def fail(line: str) -> None:
    """Raise AssertionError."""
    raise AssertionError(line)


def main() -> int:
    """Run the check in a network of its own; return 0 when everything passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path, help="for the Debian with Home Assistant")
    given = parser.parse_args()
    root = install(given.folder.absolute())
    if INSIDE not in os.environ:
        os.environ[INSIDE] = "1"
        script = f'{PROC} "{root}/proc" && ip link set lo up && exec "$@"'
        again = (sys.executable, "-m", "home_assistant.check", str(given.model), str(given.folder))
        os.execvp("unshare", ["unshare", "--net", "--mount", "sh", "-c", script, "sh", *again])
    print(f"Home Assistant {VERSION}", flush=True)
    return 1 if run(root, given.model.absolute()) else 0


if __name__ == "__main__":
    sys.exit(main())
