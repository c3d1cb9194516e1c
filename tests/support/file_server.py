"""A web server of this machine that gives files, or wrong answers."""

import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple


class Answer(NamedTuple):
    status: int
    length: int
    """As stated; less may be sent."""
    body: bytes


class Handler(BaseHTTPRequestHandler):
    server: "FileServer"

    def do_GET(self):
        status, length, body = self.server.answers.get(self.path, Answer(404, 0, b""))
        self.server.asked.append(self.path)
        tag = f'"{zlib.crc32(body[:100])}"'  # of what is whole as of what is broken off
        if self.headers.get("If-Range") == tag:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            status = 206 if start < length else 416
            length, body = max(0, length - start), body[start:]
            self.server.asked[-1] += f" from {start}"
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("ETag", tag)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class FileServer(ThreadingHTTPServer):
    """Answers with what :meth:`serve` was given; `asked` are the paths that were asked for."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []

    def serve(self, path: str, body: bytes | Path, status: int = 200, length: int | None = None) -> str:
        """Has a path answered, with the bytes of a file or these, and returns its address."""
        content = body.read_bytes() if isinstance(body, Path) else body
        self.answers[path] = Answer(status, len(content) if length is None else length, content)
        return self.address + path


@contextmanager
def file_server() -> Iterator[FileServer]:
    with FileServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
