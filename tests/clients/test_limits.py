"""Limits that the client repeats, because it must not import the daemon: they are the daemon's."""

from llamactl.standard_input import MAX_PROMPT_BYTES
from llamad.door import unix_socket
from llamad.ranges import MAX_TEXT_BYTES
from llamad.rpc import admin_messages
from llamad_client import address, upload


def test_the_limits_of_the_client_are_those_of_the_service() -> None:
    assert MAX_PROMPT_BYTES == MAX_TEXT_BYTES
    assert upload.MAX_CHUNK_BYTES == admin_messages.MAX_CHUNK_BYTES
    assert address.MAX_PATH_BYTES == unix_socket.MAX_PATH_BYTES
