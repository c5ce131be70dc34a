"""How often a model calls the right tool of a house, with its calls constrained and without.

    python tests/bench/home_commands.py [MODEL.gguf...] [--every 1]

60 commands, 25 tools, greedy. A call is right when it names the tool and has the arguments that the
command says, capitals aside, and no others. Ways: *required* (a call is demanded), *auto* (the
model may answer), and *free* (the same prompt without a constraint, read by the same reader; a
format whose marks are control tokens counts less there, because their text is not told). Without a
model the demo model answers, and Gemma 3 270M, a base model without a template (gemma3.py).
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, os.fspath(Path(__file__).parent.parent))

import gemma3
from clients.daemon_process import daemon
from golden_files import DEMO_MODEL
from llamad.engine.bindings import EngineModel
from llamad.text import ChatTemplate, tokenizer_from_metadata
from llamad.text.tools.call import Call, Tool, Tools
from llamad.text.tools.splitter import CallSplitter
from llamad_client import Client, ToolCallDelta

ROOMS = ("kitchen", "bathroom", "bedroom", "living room", "office", "garage")
MOST_TOKENS = 120
SYSTEM = "You control a smart home. Call the function that does what the user asks for."

_ROOM = {"room": {"enum": list(ROOMS)}}
_PERCENT = {"type": "integer", "minimum": 0, "maximum": 100}
# Name, what it does, and its parameters, all of them required.
_TOOLS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("light_on", "Turn on the light of a room", _ROOM),
    ("light_off", "Turn off the light of a room", _ROOM),
    ("set_brightness", "Dim the light of a room to a percentage", {**_ROOM, "percent": _PERCENT}),
    (
        "set_light_color",
        "Set the color of a room's light",
        {**_ROOM, "color": {"enum": ["red", "green", "blue", "white"]}},
    ),
    (
        "set_temperature",
        "Set the heating of a room, in degrees Celsius",
        {**_ROOM, "degrees": {"type": "number", "minimum": 5, "maximum": 30}},
    ),
    ("get_temperature", "Tell how warm a room is", _ROOM),
    ("heating_off", "Turn off the heating of a room", _ROOM),
    ("open_blinds", "Open the blinds of a room", _ROOM),
    ("close_blinds", "Close the blinds of a room", _ROOM),
    ("set_blinds", "Move the blinds of a room to a percentage", {**_ROOM, "percent": _PERCENT}),
    ("lock_door", "Lock a door", {"door": {"enum": ["front", "back", "garage"]}}),
    ("unlock_door", "Unlock a door", {"door": {"enum": ["front", "back", "garage"]}}),
    ("is_door_locked", "Tell whether a door is locked", {"door": {"enum": ["front", "back"]}}),
    ("play_music", "Play music by an artist in a room", {**_ROOM, "artist": {"type": "string"}}),
    ("stop_music", "Stop the music", {}),
    ("set_volume", "Set the volume of the music to a percentage", {"percent": _PERCENT}),
    ("next_song", "Skip to the next song", {}),
    (
        "start_timer",
        "Start a timer of so many minutes",
        {"minutes": {"type": "integer", "minimum": 1, "maximum": 600}},
    ),
    ("cancel_timer", "Cancel the timer", {}),
    (
        "add_to_shopping_list",
        "Put something on the shopping list",
        {"item": {"type": "string"}},
    ),
    ("start_vacuum", "Send the vacuum robot to a room", _ROOM),
    ("dock_vacuum", "Send the vacuum robot back to its dock", {}),
    ("arm_alarm", "Arm the alarm", {"mode": {"enum": ["home", "away"]}}),
    ("disarm_alarm", "Disarm the alarm", {}),
    ("get_weather", "Tell the weather of a day", {"day": {"enum": ["today", "tomorrow"]}}),
)
# Command, tool, arguments.
_COMMANDS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    *((f"Turn on the light in the {r}", "light_on", {"room": r}) for r in ROOMS[:4]),
    ("It is dark in the office, make some light", "light_on", {"room": "office"}),
    *((f"Switch the {r} light off, please", "light_off", {"room": r}) for r in ROOMS[:4]),
    ("I am leaving the garage, no light needed there", "light_off", {"room": "garage"}),
    *(
        (f"Dim the {r} light to {n} percent", "set_brightness", {"room": r, "percent": n})
        for r, n in (("bedroom", 20), ("living room", 55), ("kitchen", 80))
    ),
    ("Make the bathroom light half as bright as it can be", "set_brightness",
     {"room": "bathroom", "percent": 50}),
    *(
        (f"Make the light in the {r} {c}", "set_light_color", {"room": r, "color": c})
        for r, c in (("office", "blue"), ("bedroom", "red"), ("living room", "green"))
    ),
    *(
        (f"Set the {r} to {n} degrees", "set_temperature", {"room": r, "degrees": n})
        for r, n in (("bathroom", 23), ("bedroom", 18.5), ("office", 21))
    ),
    *((f"How warm is it in the {r}?", "get_temperature", {"room": r}) for r in ROOMS[2:5]),
    ("Stop heating the garage", "heating_off", {"room": "garage"}),
    ("Turn off the heating in the kitchen", "heating_off", {"room": "kitchen"}),
    *((f"Open the blinds in the {r}", "open_blinds", {"room": r}) for r in ROOMS[2:4]),
    *((f"Close the {r} blinds", "close_blinds", {"room": r}) for r in ROOMS[3:5]),
    ("Move the bedroom blinds to 30 percent", "set_blinds", {"room": "bedroom", "percent": 30}),
    *((f"Lock the {d} door", "lock_door", {"door": d}) for d in ("front", "back")),
    ("Unlock the garage door", "unlock_door", {"door": "garage"}),
    ("Let my friend in at the front door", "unlock_door", {"door": "front"}),
    *((f"Is the {d} door locked?", "is_door_locked", {"door": d}) for d in ("front", "back")),
    *(
        (f"Play {a} in the {r}", "play_music", {"room": r, "artist": a})
        for a, r in (("Mozart", "living room"), ("ABBA", "kitchen"), ("Björk", "office"))
    ),
    ("Stop the music", "stop_music", {}),
    ("Silence, please: no more music", "stop_music", {}),
    *((f"Set the volume to {n} percent", "set_volume", {"percent": n}) for n in (10, 65)),
    ("Next song", "next_song", {}),
    ("I do not like this song, skip it", "next_song", {}),
    *((f"Set a timer for {n} minutes", "start_timer", {"minutes": n}) for n in (5, 12, 45)),
    ("Wake me in an hour with a timer", "start_timer", {"minutes": 60}),
    ("Cancel the timer", "cancel_timer", {}),
    *(
        (f"Put {i} on the shopping list", "add_to_shopping_list", {"item": i})
        for i in ("milk", "olive oil")
    ),
    ("Vacuum the living room", "start_vacuum", {"room": "living room"}),
    ("Clean the floor of the kitchen with the robot", "start_vacuum", {"room": "kitchen"}),
    ("Send the vacuum back to its dock", "dock_vacuum", {}),
    ("Arm the alarm, we are going away", "arm_alarm", {"mode": "away"}),
    ("Arm the alarm in home mode for the night", "arm_alarm", {"mode": "home"}),
    ("Disarm the alarm", "disarm_alarm", {}),
    ("What is the weather today?", "get_weather", {"day": "today"}),
    ("Will it rain tomorrow?", "get_weather", {"day": "tomorrow"}),
)  # fmt: skip


def declared(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a tool's arguments."""
    return {"type": "object", "properties": parameters, "required": list(parameters)}


TOOLS: list[dict[str, Any]] = [
    {"name": name, "description": description, "parameters": declared(parameters)}
    for name, description, parameters in _TOOLS
]


class Asked:
    """A model that is asked through the service."""

    def __init__(self, client: Client, model: Path) -> None:
        self._client = client
        with EngineModel(os.fspath(model)) as engine_model:
            metadata = engine_model.metadata()
        template = ChatTemplate.from_metadata(metadata, tokenizer_from_metadata(metadata))
        self._row = template.tool_format
        template.close()
        self._tools = Tools([Tool(str(t["name"]), "", t["parameters"]) for t in TOOLS])

    def call(self, command: str, way: str) -> tuple[str, dict[str, Any]] | None:
        """Return the first call for a command; None: there is none."""
        messages = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": command},
        ]
        options: Any = {"temperature": 0.0, "max_tokens": MOST_TOKENS}
        if way == "free":
            prompt = self._client.render_chat(messages, tools=TOOLS).tokens
            splitter = CallSplitter(self._row, self._tools)
            parts = splitter.push("".join(self._client.generate(prompt, **options)))
            calls = [p for p in (*parts, *splitter.flush()) if isinstance(p, Call)]
            return (calls[0].name, dict(calls[0].arguments)) if calls else None
        completion = self._client.chat(
            messages, tools=TOOLS, tool_choice=way, parallel_tool_calls=False, **options
        )
        for event in completion.events():
            if isinstance(event, ToolCallDelta):
                return event.name, json.loads(event.arguments)
        return None


def same(got: Any, wanted: Any) -> bool:
    """Whether an argument is what was said."""
    if isinstance(wanted, str):
        return isinstance(got, str) and got.casefold() == wanted.casefold()
    return bool(got == wanted)


def is_right(got: tuple[str, dict[str, Any]] | None, name: str, wanted: dict[str, Any]) -> bool:
    """Whether a call does what the command says."""
    if got is None or got[0] != name or got[1].keys() != wanted.keys():
        return False
    return all(same(got[1][key], wanted[key]) for key in wanted)


def main() -> None:
    """Print a line for each model and way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, nargs="*")
    parser.add_argument("--every", type=int, default=1, help="only each n-th command")
    arguments = parser.parse_args()
    models = arguments.models
    if not models:
        gemma3.fetch()
        models = [DEMO_MODEL, gemma3.MODEL]
    for model in models:
        ask_all(model, _COMMANDS[:: arguments.every])


def ask_all(model: Path, commands: Sequence[tuple[str, str, dict[str, Any]]]) -> None:
    """Print how many commands a model gets right, a line for each way."""
    with (
        tempfile.TemporaryDirectory() as folder,
        daemon(Path(folder), "--model", os.fspath(model.resolve())) as running,
    ):
        running.wait_until_ready()
        with Client(os.fspath(running.socket)) as client:
            asked = Asked(client, model)
            for way in ("required", "auto", "free"):
                calls = [asked.call(command, way) for command, _, _ in commands]
                n_calls = sum(call is not None for call in calls)
                n_named = sum(
                    c is not None and c[0] == name
                    for c, (_, name, _) in zip(calls, commands, strict=True)
                )
                n_right = sum(
                    is_right(call, name, wanted)
                    for call, (_, name, wanted) in zip(calls, commands, strict=True)
                )
                counts = f"{n_calls} of {len(commands)} call, {n_named} the right tool"
                print(f"{model.stem}, {way}: {counts}, {n_right} right", flush=True)


if __name__ == "__main__":
    main()
