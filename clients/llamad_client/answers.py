"""Several answers of one prompt, put together from the events of one call."""

from dataclasses import dataclass

from llamad_client.values import Event, Result, TextDelta, ThinkingDelta


@dataclass(slots=True)
class Answer:
    """One of the answers that ``n`` asked for. result: None where the call ended before it."""

    text: str = ""
    thinking: str = ""
    result: Result | None = None

    def add(self, event: Event) -> None:
        """Take the next event of this answer."""
        match event:
            case TextDelta():
                self.text += event.text
            case ThinkingDelta():
                self.thinking += event.text
            case Result():
                self.result = event


class Answers:
    """The answers of a call, by their numbers."""

    def __init__(self) -> None:
        self._answers: dict[int, Answer] = {}

    def add(self, index: int, event: Event) -> None:
        """Take an event of the answer of this number."""
        self._answers.setdefault(index, Answer()).add(event)

    def all(self) -> list[Answer]:
        """Return the answers in their order."""
        return [self._answers[index] for index in sorted(self._answers)]
