"""The configuration: ``/etc/llamad/http.toml``, each key with its range and its default."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llamad_client.request import Priority
from llamad_gateway.config_file import key as _key
from llamad_http.authorization import CLASSES

DEFAULT_PATH = Path("/etc/llamad/http.toml")
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Config:
    """All keys, in their sections; a test compares them with packaging/etc/http.toml."""

    listen: tuple[str, ...] = _key("server", ("127.0.0.1:8080", "127.0.0.1:11434"))
    hosts: tuple[str, ...] = _key("server", ())
    origins: tuple[str, ...] = _key("server", ())
    keys: str = _key("server", "/etc/llamad/http-keys")
    allow_unauthenticated: bool = _key("server", False)
    idle_exit_seconds: int = _key("server", 600, 0, 1 << 31)
    socket: str = _key("service", "/run/llamad/llamad.sock")
    priority: Priority = _key("service", "normal", one_of=CLASSES)  # noqa: RUF009 - a field
    any_model_name: bool = _key("service", True)
    auto_use: str = _key("service", "admins", one_of=("nobody", "admins", "everybody"))
    pull: bool = _key("service", False)
    aliases: Mapping[str, str] = _key("aliases", {})
    max_body_bytes: int = _key("limits", 16 * MIB, 1024, 1 << 30)
    max_bodies_bytes: int = _key("limits", 32 * MIB, 1024, 1 << 32)
    max_connections: int = _key("limits", 1024, 1, 65536)
    max_connections_per_address: int = _key("limits", 256, 1, 65536)
    max_completions: int = _key("limits", 64, 1, 256)
    head_seconds: float = _key("limits", 20.0, 0.1, 3600)
    body_seconds: float = _key("limits", 60.0, 0.1, 3600)
    write_seconds: float = _key("limits", 60.0, 0.1, 3600)
    keep_alive_seconds: float = _key("limits", 75.0, 0.1, 3600)
    ping_seconds: float = _key("limits", 10.0, 0.1, 3600)
    drain_seconds: float = _key("limits", 20.0, 0, 3600)
