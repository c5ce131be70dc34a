"""From what was said to the events of its answer: the service's part of a connection.

One ``Answers`` serves all connections. What it cannot do is said in a sentence, because a program
may read it aloud; the journal has the reason.
"""

import logging
from collections.abc import AsyncGenerator, Hashable
from dataclasses import dataclass

from llamad_client import (
    AsyncClient,
    AsyncCompletion,
    ClientError,
    ServiceUnreachable,
    StillLoading,
    TextDelta,
)
from llamad_wyoming import __version__
from llamad_wyoming.config import Config
from llamad_wyoming.conversations import Conversations
from llamad_wyoming.events import Event

log = logging.getLogger(__name__)

NOTHING = "There was nothing to answer."
NOT_THERE = "The language model is not running."
LOADING = "The language model is still loading."
BUSY = "The language model is busy."
TOO_SLOW = "The language model took too long."
STOPPED = "The language model was stopped."
FAILED = "The language model could not answer."
_SENTENCES = {"resource_exhausted": BUSY, "deadline_exceeded": TOO_SLOW, "cancelled": STOPPED}
ATTRIBUTION = {"name": "The llamad maintainers", "url": ""}


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said. key, name: of its conversation, for us and for the client."""

    said: str
    key: Hashable
    name: str


class Answers:
    """Answers transcripts by the service, and remembers the conversations."""

    def __init__(self, client: AsyncClient, config: Config) -> None:
        self._client = client
        self._config = config
        self._conversations = Conversations(config)
        self._running: set[AsyncCompletion] = set()

    def stop(self) -> None:
        """End every answer, with what was said so far."""
        for completion in self._running:
            completion.cancel()

    async def answer(self, transcript: Transcript) -> AsyncGenerator[Event, None]:
        """Yield the events of one answer."""
        context = {"context": {"conversation_id": transcript.name}}
        if not transcript.said:
            yield Event("not-handled", {"text": NOTHING, **context})
            return
        messages = self._conversations.messages(transcript.key, transcript.said)
        pieces: list[str] = []
        fault = ""
        try:
            async with self._chat(messages) as completion:
                self._running.add(completion)
                try:
                    async for event in completion.events():
                        if isinstance(event, TextDelta):
                            if not pieces:
                                yield Event("handled-start", context)
                            pieces.append(event.text)
                            yield Event("handled-chunk", {"text": event.text})
                finally:
                    self._running.discard(completion)
            if completion.result is None or completion.result.finish_reason == "cancelled":
                fault = STOPPED
        except ClientError as error:
            log.warning("transcript not handled reason=%s %s", error.reason, error.message)
            fault = sentence(error)
        text = "".join(pieces)
        if fault:
            yield Event("not-handled", {"text": fault, **context})
        else:
            self._conversations.add(transcript.key, transcript.said, text)
            yield Event("handled", {"text": text.strip(), **context})
        if pieces:
            yield Event("handled-stop")

    def _chat(self, messages: list[dict[str, str]]) -> AsyncCompletion:
        return self._client.chat(
            messages,
            max_tokens=self._config.max_tokens,
            priority=self._config.priority,
            deadline_seconds=self._config.deadline_seconds,
            thinking=self._config.thinking,
            context_full="drop-oldest",
        )

    async def info(self) -> Event:
        """Return what a program is told that asks what there is: one program, one model."""
        name = "llamad"
        try:
            status = await self._client.status()
            if status.model is not None:
                name = status.model.name
        except ClientError as error:
            log.info("model unknown reason=%s", error.reason)
        artifact = {"attribution": ATTRIBUTION, "installed": True, "version": __version__}
        model = {"name": name, "description": "language model", "languages": [], **artifact}
        program = {
            "name": "llamad",
            "description": "a language model on this machine",
            "models": [model],
            "supports_handled_streaming": True,
            "supports_home_control": False,
            **artifact,
        }
        others = ("asr", "tts", "intent", "wake", "mic", "snd")
        return Event("info", {"handle": [program], **{name: [] for name in others}})


def sentence(error: ClientError) -> str:
    """Return what a person is told of an error."""
    match error:
        case StillLoading():
            return LOADING
        case ServiceUnreachable():
            return NOT_THERE
    return _SENTENCES.get(error.code, FAILED)
