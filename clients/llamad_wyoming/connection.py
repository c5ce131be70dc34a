"""One connection: its events are read while an answer is written.

Transcripts are answered one after the other, in their order. ``describe`` and ``ping`` are answered
at once. A client that leaves ends its answer, and so its job. Other events are left out, as the
protocol asks.
"""

import asyncio
import logging
import uuid
from contextlib import aclosing

from llamad_gateway.lingering import discard_rest
from llamad_wyoming.answers import Answers, Transcript
from llamad_wyoming.config import Config
from llamad_wyoming.events import Event, EventError, Sizes, read_event, written

log = logging.getLogger(__name__)

MOST_NAME = 128  # characters of the name of a conversation
MOST_WAITING = 4  # transcripts; a client that sends more is not read further


class Connection:
    """A client, from its first event to its last."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answers: Answers,
        config: Config,
        address: str,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._answers = answers
        self._config = config
        self._address = address
        self._name = uuid.uuid4().hex
        self._said: asyncio.Queue[Transcript] = asyncio.Queue(MOST_WAITING)
        self._is_answering = False
        self._is_ending = False

    async def serve(self) -> None:
        """Serve until the client leaves, is silent for too long, or sends what is no event."""
        tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._answer())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception) and not isinstance(end, ConnectionError | TimeoutError):
                log.error("connection failed", exc_info=end)

    def end(self) -> None:
        """End it, after the answer that is being given."""
        self._is_ending = True
        if not self._is_answering:
            self._reader.feed_eof()

    async def _read(self) -> None:
        sizes = Sizes(self._config.max_event_bytes, self._config.max_payload_bytes)
        try:
            while beginning := await self._wait():
                async with asyncio.timeout(self._config.event_seconds):
                    event = await read_event(self._reader, beginning, sizes)
                match event:
                    case None:
                        return
                    case Event("describe"):
                        await self._send(await self._answers.info())
                    case Event("ping"):
                        await self._send(Event("pong", {"text": event.text("text")}))
                    case Event("transcript"):
                        await self._said.put(self._transcript(event))
        except EventError as error:
            await self._send(_error(error))
            await discard_rest(self._reader, self._writer)

    async def _wait(self) -> bytes:
        """Return the first byte of the next event; none where the client left or is too silent."""
        while True:
            try:
                async with asyncio.timeout(self._config.idle_seconds):
                    return await self._reader.read(1)
            except TimeoutError:
                if not self._is_answering and self._said.empty():
                    return b""

    async def _answer(self) -> None:
        while not self._is_ending:
            transcript = await self._said.get()
            self._is_answering = True
            async with aclosing(self._answers.answer(transcript)) as parts:
                async for part in parts:
                    await self._send(part)
            self._is_answering = False

    def _transcript(self, event: Event) -> Transcript:
        """Return what was said, and in which conversation: a named one, or the connection's.

        Home Assistant makes a connection for each sentence, and names the conversation. Raises
        EventError.
        """
        said = event.text("text").strip()
        context = event.data.get("context")
        if isinstance(context, dict) and context.get("conversation_id"):
            name = Event(event.type, context).text("conversation_id")[:MOST_NAME]
            return Transcript(said, (self._address, name), name)
        return Transcript(said, self._name, self._name)

    async def _send(self, event: Event) -> None:
        self._writer.write(written(event))
        async with asyncio.timeout(self._config.write_seconds):
            await self._writer.drain()


def _error(error: EventError) -> Event:
    return Event("error", {"text": str(error), "code": "bad-event"})
