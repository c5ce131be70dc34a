"""The conversation on a terminal: asks, answers and obeys until the user leaves.

Owns the order of things. Between two prompts the terminal is silent, and Ctrl-C does one thing: it
ends the answer. It never interrupts what is being written.
"""

import argparse
import contextlib
import signal
import textwrap
from collections.abc import Iterator
from types import FrameType

from llamactl import answer, sampling
from llamactl.chat import commands, kept, keyboard
from llamactl.chat.conversation import Conversation, FileFault
from llamactl.chat.history import StoredHistory, history_path
from llamactl.chat.prompt import Prompt
from llamactl.chat.screen import Screen
from llamactl.output import counted
from llamactl.progress_line import ProgressLine
from llamad_client import (
    Client,
    ClientError,
    Completion,
    PrefillProgress,
    Queued,
    Refused,
    Result,
    ServiceUnreachable,
    Status,
    StillLoading,
    TextDelta,
    ThinkingDelta,
)

GO_ON = "this is a new conversation; llamactl chat -c goes on with the last one"


def run(arguments: argparse.Namespace) -> int:
    """Hold a conversation on the terminal; return 0. Raises ClientError when there is no service.

    Once it has begun, a message that fails does not end it.
    """
    with Client(arguments.socket) as client:
        can_go_on = not arguments.go_on and kept.can_go_on()
        state, note = _state(client, arguments)
        with keyboard.silent():
            talk = Talk(client, state, Screen(), stats=arguments.stats)
            talk.greet(note or (GO_ON if can_go_on else ""))
            prompt = Prompt(StoredHistory(history_path()), commands.complete)
            while (text := prompt.ask()) is not None:
                with keyboard.paste_is_marked():
                    if not talk.handle(text):
                        break
    return 0


def _state(client: Client, arguments: argparse.Namespace) -> tuple[commands.State, str]:
    """Return the state of the conversation at its beginning, and what there is to say of it.

    Raises ClientError where nothing can answer.
    """
    status = client.status()
    if status.model is None or status.state != "ready":
        raise _not_ready(status)
    opened = kept.open_conversation(arguments.system, go_on=arguments.go_on)
    state = commands.State(
        service=client,
        conversation=opened.conversation,
        keeper=opened.keeper,
        options=sampling.client_options(arguments),
        model=status.model.name,
        n_ctx=status.model.n_ctx,
    )
    return state, opened.note or _summary(opened.conversation)


def _summary(conversation: Conversation) -> str:
    """Return where a conversation stands that is gone on with; empty for a new one."""
    questions = [turn["content"] for turn in conversation.turns if turn["role"] == "user"]
    if not questions:
        return ""
    messages = counted(len(conversation.turns), "message")
    last = textwrap.shorten(questions[-1], 60, placeholder=" ...")
    return f"the conversation has {messages}; your last: {last}"


def _not_ready(status: Status) -> ClientError:
    """Return the error that a message would get."""
    detail = f": {status.detail}" if status.detail else ""
    match status.state:
        case "loading":
            return StillLoading("MODEL_LOADING", f"llamad is still loading its model{detail}")
        case "stopping":
            return ServiceUnreachable("SHUTTING_DOWN", f"llamad is stopping{detail}")
        case "failed":
            return Refused("MODEL_FAILED", f"llamad could not load its model{detail}")
        case _:
            return Refused("NO_MODEL", f"llamad has no model loaded{detail}")


class Talk:
    """What a message or a command does, and what is shown of it."""

    def __init__(
        self, client: Client, state: commands.State, screen: Screen, *, stats: bool
    ) -> None:
        self._client = client
        self._state = state
        self._screen = screen
        self._stats = stats

    def greet(self, note: str = "") -> None:
        """Say who answers, how much it can read, and where help is. note: of the conversation."""
        self._screen.note(
            f"{self._state.model}, context {self._state.n_ctx} tokens\n"
            "/help shows commands and keys, Ctrl-C stops an answer, Ctrl-D leaves"
        )
        if note:
            self._screen.note(note)

    def handle(self, text: str) -> bool:
        """Do what a message says; return False when it ends the conversation."""
        try:
            if commands.is_command(text):
                self._screen.note(commands.run(self._state, text))
            elif text.strip():
                self._answer(text.strip())
        except commands.Leave:
            return False
        except (commands.CommandFault, FileFault) as fault:
            self._screen.error(str(fault))
        except ClientError as error:
            hint = "; /reset begins anew" if error.reason == "PROMPT_TOO_LONG" else ""
            self._screen.error(error.message + hint)
        except KeyboardInterrupt:  # while a command waited for the service
            self._screen.note("interrupted; the service goes on with what it was told")
        return True

    def _answer(self, question: str) -> None:
        conversation = self._state.conversation
        messages = conversation.messages(question)
        with self._client.chat(messages, **self._state.options) as completion:
            text = self._stream(completion)
        result = completion.result
        if text or result is not None:
            conversation.add(question, text)
            keeper = self._state.keeper
            if keeper is not None and (note := keeper.keep(conversation)):
                self._screen.error(note)
        if result is None:
            self._screen.note("(stopped)" if text else "(stopped; the question is left out)")
            return
        self._state.last = result
        if self._stats:
            answer.print_stats(result)
        self._say_how_it_ended(result)

    def _stream(self, completion: Completion) -> str:
        """Show an answer as it arrives; return its text, as far as it came."""
        view = self._screen.answer()
        progress = answer.PrefillLine()
        waiting = ProgressLine()
        pieces: list[str] = []
        queued = False
        try:
            with _stopped_by_ctrl_c(completion):
                for event in completion.events():
                    if isinstance(event, Queued):
                        if not queued:  # it comes again when the place changes
                            queued = True
                            self._note_queued(event)
                        progress.queued(event)
                    elif isinstance(event, PrefillProgress):
                        progress.update(event)
                    elif isinstance(event, ThinkingDelta):
                        progress.erase()
                        if self._state.show_thoughts:
                            waiting.erase()
                            view.add(event.text, thought=True)
                        else:
                            waiting.show(f"thinking: {counted(event.tokens, 'token')}")
                    elif isinstance(event, TextDelta):
                        waiting.erase()
                        progress.erase()
                        pieces.append(event.text)
                        view.add(event.text)
        finally:
            waiting.erase()
            progress.erase()
            view.end()
        return "".join(pieces)

    def _note_queued(self, event: Queued) -> None:
        if event.dropped_messages:
            self._state.conversation.leave_out(event.dropped_messages)
            self._screen.note(
                f"(the context of {self._state.n_ctx} tokens is full: "
                f"{counted(event.dropped_messages, 'oldest message')} left out; /reset begins anew)"
            )
        if event.substitute_template and self._state.last is None:
            self._screen.note(
                f"(the model has no chat template: the {event.substitute_template} one was taken)"
            )

    def _say_how_it_ended(self, result: Result) -> None:
        if result.finish_reason == "cancelled":
            self._screen.note(f"(job {result.job_id} was cancelled by somebody else)")
        elif result.finish_reason == "loop":
            self._screen.note("(ended: it only repeated itself; /set loop_guard off lets it go on)")
        elif result.finish_reason == "length" and result.context_full:
            n_ctx = self._state.n_ctx
            self._screen.note(f"(cut: the context of {n_ctx} tokens is full; /reset begins anew)")
        elif result.finish_reason == "length":
            n_tokens = counted(result.completion_tokens, "token")
            self._screen.note(f"(cut after {n_tokens}; /set max_tokens N sets the bound)")


@contextlib.contextmanager
def _stopped_by_ctrl_c(completion: Completion) -> Iterator[None]:
    """Let Ctrl-C cancel a completion and interrupt nothing else."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        completion.cancel()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
