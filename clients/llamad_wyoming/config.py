"""The configuration: ``/etc/llamad/wyoming.toml``, each key with its range and its default."""

from dataclasses import dataclass
from pathlib import Path

from llamad_client.request import Priority
from llamad_gateway.config_file import key as _key

DEFAULT_PATH = Path("/etc/llamad/wyoming.toml")
CLASSES = ("interactive", "normal", "batch")
SYSTEM = (
    "You are a voice assistant. What you answer is read aloud: answer in one to three short"
    " sentences, without lists, markup or emoji, in the language of the question."
)


@dataclass(frozen=True, slots=True)
class Config:
    """All keys, in their sections; a test compares them with packaging/etc/wyoming.toml."""

    listen: tuple[str, ...] = _key("server", ("127.0.0.1:10500",))
    allow_other_machines: bool = _key("server", False)
    idle_exit_seconds: int = _key("server", 600, 0, 1 << 31)
    socket: str = _key("service", "/run/llamad/llamad.sock")
    priority: Priority = _key("service", "interactive", one_of=CLASSES)  # noqa: RUF009 - a field
    system: str = _key("answers", SYSTEM)
    max_tokens: int = _key("answers", 200, 1, 1 << 20)
    deadline_seconds: float = _key("answers", 60.0, 0.1, 86400)
    thinking: bool = _key("answers", False)
    conversation_seconds: float = _key("answers", 300.0, 0, 86400)
    conversation_turns: int = _key("answers", 10, 0, 1000)
    max_conversations: int = _key("limits", 64, 1, 65536)
    max_connections: int = _key("limits", 256, 1, 65536)
    max_connections_per_address: int = _key("limits", 64, 1, 65536)
    max_event_bytes: int = _key("limits", 16384, 1024, 1 << 20)
    max_payload_bytes: int = _key("limits", 1 << 20, 0, 1 << 30)
    event_seconds: float = _key("limits", 20.0, 0.1, 3600)
    idle_seconds: float = _key("limits", 600.0, 0.1, 86400)
    write_seconds: float = _key("limits", 60.0, 0.1, 3600)
    drain_seconds: float = _key("limits", 20.0, 0, 3600)
