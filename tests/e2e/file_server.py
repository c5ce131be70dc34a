"""A web server with one file that breaks off its first answer, as a bad network does.

    python3 file_server.py FILE PORT

Runs inside a machine under test: it needs nothing but Python. It listens on the loopback, sends
half of what was asked for first, and then answers ranges with the rest.
"""

import http.server
import re
import sys
from pathlib import Path
from typing import ClassVar

PIECE_BYTES = 1 << 20


class FileHandler(http.server.BaseHTTPRequestHandler):
    """GET of any path is the file, or the end of it."""

    protocol_version = "HTTP/1.1"
    file: ClassVar[Path]
    broken_off: ClassVar[bool] = False

    def do_GET(self) -> None:
        """Send what is asked for; the first time only half of it."""
        size = self.file.stat().st_size
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked is not None else 0
        self.send_response(200 if asked is None else 206)
        self.send_header("ETag", f'"{size}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(size - start))
        if asked is not None:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.end_headers()
        if type(self).broken_off:
            self._send(start, size)
        else:
            type(self).broken_off = True
            self._send(start, start + (size - start) // 2)
            self.close_connection = True

    def _send(self, start: int, end: int) -> None:
        with self.file.open("rb") as file:
            file.seek(start)
            while piece := file.read(min(PIECE_BYTES, end - file.tell())):
                self.wfile.write(piece)


def main() -> None:
    """Serve until killed."""
    FileHandler.file = Path(sys.argv[1])
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), FileHandler).serve_forever()


if __name__ == "__main__":
    main()
