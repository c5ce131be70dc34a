"""What is remembered of conversations: so many turns, so many conversations, for a while."""

from llamad_wyoming.config import Config
from llamad_wyoming.conversations import Conversations


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def said(conversations: Conversations, key: str) -> list[str]:
    """Return what a chat would tell the model of a conversation, but for what is said now."""
    messages = conversations.messages(key, "now")
    assert messages[-1] == {"role": "user", "content": "now"}
    return [message["content"] for message in messages[:-1]]


def test_a_chat_has_the_system_message_and_the_turns_in_their_order() -> None:
    conversations = Conversations(Config(system="Be short."))
    conversations.add("a", "one", "1")
    conversations.add("a", "two", "2")
    roles = [message["role"] for message in conversations.messages("a", "three")]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]
    assert said(conversations, "a") == ["Be short.", "one", "1", "two", "2"]
    assert said(conversations, "b") == ["Be short."]


def test_the_oldest_turns_go() -> None:
    conversations = Conversations(Config(system="", conversation_turns=2))
    for word in ("one", "two", "three"):
        conversations.add("a", word, word)
    assert said(conversations, "a") == ["two", "two", "three", "three"]


def test_no_turns_are_remembered_where_none_may_be() -> None:
    conversations = Conversations(Config(system="", conversation_turns=0))
    conversations.add("a", "one", "1")
    assert said(conversations, "a") == []


def test_a_conversation_is_forgotten_after_a_silence() -> None:
    clock = Clock()
    conversations = Conversations(Config(system="", conversation_seconds=60), clock)
    conversations.add("a", "one", "1")
    clock.now += 59
    conversations.add("b", "two", "2")
    assert said(conversations, "a") == ["one", "1"]
    clock.now += 2
    assert said(conversations, "a") == []
    assert said(conversations, "b") == ["two", "2"]
    assert len(conversations) == 1


def test_the_conversation_that_was_silent_for_longest_goes_where_there_are_too_many() -> None:
    clock = Clock()
    conversations = Conversations(Config(system="", max_conversations=2), clock)
    for key in ("a", "b", "a", "c"):
        clock.now += 1
        conversations.add(key, key, key)
    assert [bool(said(conversations, key)) for key in "abc"] == [True, False, True]
