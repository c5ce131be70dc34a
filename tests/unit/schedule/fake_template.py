"""A chat template of tests."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from llamad.text.tools.call import Tool


class FakeChatTemplate:
    """Renders ``role:content|`` for each message."""

    substitute = ""

    def __init__(self) -> None:
        self.arguments: list[Mapping[str, Any]] = []  # of each encoding

    def encode(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        arguments: Mapping[str, Any] = MappingProxyType({}),
        tools: Sequence[Tool] = (),
        continue_final: bool = False,
    ) -> list[int]:
        self.arguments.append(arguments)
        return list("".join(f"{m['role']}:{m['content']}|" for m in messages).encode())

    def thinking_arguments(
        self, enabled: bool | None, effort: str | None = None
    ) -> dict[str, bool | str]:
        return {"enable_thinking": enabled is not False} | ({"effort": effort} if effort else {})
