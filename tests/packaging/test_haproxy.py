"""The files for HAProxy: what HAProxy itself does not check. `make boards-check` runs them."""

import re
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "packaging" / "haproxy"
SETTINGS, HEADERS, DATA = 4, 1, 0  # RFC 9113, section 6
SERVING = b"\x00\x00\x00\x00\x02\x08\x01"  # a message of 2 bytes: field 1, varint, 1


def _frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        size = int.from_bytes(data[:3], "big")
        assert len(data) >= 9 + size
        yield data[3], data[9 : 9 + size]
        data = data[9 + size :]


def test_the_health_of_grpc_is_asked_in_whole_frames() -> None:
    text = (FOLDER / "boards-grpc.cfg").read_text()
    sent = bytes.fromhex("".join(re.findall(r"send-binary (\w+)", text)))
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    assert sent.startswith(preface)
    frames = dict(_frames(sent.removeprefix(preface)))
    assert list(frames) == [SETTINGS, HEADERS, DATA]
    assert b"/grpc.health.v1.Health/Check" in frames[HEADERS]
    assert frames[DATA] == bytes(5)  # an empty HealthCheckRequest
    assert re.findall(r"expect binary (\w+)", text) == [SERVING.hex()]


def test_both_fronts_name_the_same_boards() -> None:
    addresses = [
        re.findall(r"server (\w+) ([\d.]+):", (FOLDER / name).read_text())
        for name in ("boards-http.cfg", "boards-grpc.cfg")
    ]
    assert addresses[0] == addresses[1]
    assert len(addresses[0]) == 3
