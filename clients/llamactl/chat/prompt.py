"""The prompt: one message, however many lines it has, and the keys that edit it.

Enter sends. What is pasted is part of the message, line feeds included; so is what is typed between
two \"\"\", and a line feed by Alt-Enter. Ctrl-X Ctrl-E opens an editor. Ctrl-C clears the line, and
leaves when nothing was typed since the last one; Ctrl-D leaves an empty line.
"""

from collections.abc import Callable, Iterable
from typing import TextIO, cast

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import is_searching
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import History
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout.processors import Processor, Transformation, TransformationInput
from prompt_toolkit.output import Output
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.shortcuts import CompleteStyle

from llamactl.chat.terminal_file import TerminalFile
from llamactl.streams import escaped

PROMPT = "> "
BLOCK = '"""'
LEAVE_HINT = "Ctrl-C again or Ctrl-D leaves"


class Prompt:
    """Asks for messages; ``complete`` returns the words that a line that was begun may go on with.

    input, output: other than the terminal, for tests.
    """

    def __init__(
        self,
        history: History,
        complete: Callable[[str], Iterable[str]],
        *,
        input: Input | None = None,
        output: Output | None = None,
    ) -> None:
        self._interrupted_at: str | None = None  # what the line held after the last Ctrl-C
        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            history=history,
            completer=_Words(complete),
            complete_while_typing=False,
            complete_style=CompleteStyle.READLINE_LIKE,
            reserve_space_for_menu=0,
            key_bindings=self._keys(),
            prompt_continuation=" " * len(PROMPT),
            placeholder=self._placeholder,
            input_processors=[_ShowCommands()],
            tempfile_suffix=".md",
            enable_suspend=True,
            input=input,
            output=output or _TerminalOutput.from_pty(cast(TextIO, TerminalFile())),
        )

    def ask(self) -> str | None:
        """Return the next message or command; None at the end of the input, or to leave."""
        self._interrupted_at = None
        try:
            return message_of(self._session.prompt())
        except (EOFError, KeyboardInterrupt):
            return None

    def _placeholder(self) -> str:
        return "" if self._interrupted_at is None else LEAVE_HINT

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()

        @keys.add("enter", filter=~is_searching)
        @keys.add("c-j", filter=~is_searching)
        def _send(event: KeyPressEvent) -> None:
            buffer = event.current_buffer
            if is_open_block(buffer.text):
                buffer.insert_text("\n")
            else:
                buffer.validate_and_handle()

        @keys.add("escape", "enter")
        def _new_line(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("\n")

        @keys.add("c-c")
        @keys.add("<sigint>")
        def _interrupt(event: KeyPressEvent) -> None:
            buffer = event.current_buffer
            if self._interrupted_at is not None and not buffer.text:
                event.app.exit(exception=EOFError())
                return
            buffer.reset()
            self._interrupted_at = ""

        @keys.add("c-x", "c-e")
        def _editor(event: KeyPressEvent) -> None:
            event.current_buffer.open_in_editor(validate_and_handle=False)

        return keys


def is_open_block(text: str) -> bool:
    """Say whether a text begins with \"\"\" and has no second one."""
    text = text.lstrip()
    return text.startswith(BLOCK) and text.find(BLOCK, len(BLOCK)) < 0


def message_of(text: str) -> str:
    """Return a message without the \"\"\" around it."""
    inner = text.strip()
    if inner.startswith(BLOCK) and inner.endswith(BLOCK) and len(inner) >= 2 * len(BLOCK):
        # a message, even where it looks like a command
        return "\n" + inner[len(BLOCK) : -len(BLOCK)].strip("\n")
    return text


class _TerminalOutput(Vt100_Output):
    """An output that asks the terminal nothing: its answer would come among what is typed."""

    @property
    def responds_to_cpr(self) -> bool:
        return False


class _Words(Completer):
    def __init__(self, complete: Callable[[str], Iterable[str]]) -> None:
        self._complete = complete

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        line = document.text_before_cursor
        begun = line.rpartition(" ")[2]
        for word in self._complete(line):
            yield Completion(word, start_position=-len(begun))


class _ShowCommands(Processor):
    """Shows what would turn the direction of the text over; prompt_toolkit shows other commands."""

    def apply_transformation(self, transformation_input: TransformationInput) -> Transformation:
        """Replace each such character by one that is seen."""
        fragments: StyleAndTextTuples = [
            (style, harmless(text)) for style, text, *_ in transformation_input.fragments
        ]
        return Transformation(fragments)


def harmless(text: str) -> str:
    """Return a typed text with what would turn its direction over replaced, one for one."""
    return "".join(c if escaped(c) == c or c < "\u2000" else "\ufffd" for c in text)
