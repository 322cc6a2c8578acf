"""An HTTP server on loopback that misbehaves as it is told."""

from __future__ import annotations

import contextlib
import http.server
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable
from urllib.parse import urlsplit

__all__ = ["BadServer", "Page", "Request"]


class Request:
    """One request that came, and what it got."""

    def __init__(self, path: str, headers: dict[str, str]) -> None:
        self.path = path
        self.headers = headers
        self.sent = 0
        self.status = 0

    @property
    def range(self) -> str | None:
        return self.headers.get("range")


class Page:
    """What is at a path, and how it is served. Change it as you like."""

    def __init__(self, data: bytes = b"", **how: Any) -> None:
        self.data = data
        self.etag: str | None = '"1"'
        self.modified: str | None = None
        #: Called with the page and the number of the request, from 1, before it is answered.
        self.before: Callable[[Page, int], object] | None = None
        #: Answer with this status instead of the data.
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        #: Redirect there.
        self.location: str | None = None
        #: Close (or reset) the connection when the body came to this offset of the file.
        #: Nothing behind it is ever sent.
        self.cut_at: int | None = None
        self.reset = False
        #: Stop there until this is set.
        self.stop_at: int | None = None
        self.go_on = threading.Event()
        #: Seconds between single bytes: of the body; of the headers.
        self.drip = 0.0
        self.drip_headers = 0.0
        self.ignore_range = False
        self.ignore_if_range = False
        #: Content-Length to claim; None for the right one.
        self.length: int | None = None
        self.no_length = False
        self.chunked = False
        #: Requests so far.
        self.count = 0
        for key, value in how.items():
            assert hasattr(self, key), key
            setattr(self, key, value)


class BadServer:
    """Serves ``pages``; ``requests`` is what was asked for."""

    def __init__(self, certificate: Path | None = None) -> None:
        self.pages: dict[str, Page] = {}
        self.requests: list[Request] = []
        self.lock = threading.Lock()
        self.ending = threading.Event()
        self._http = _Server(("127.0.0.1", 0), _Handler)
        self._http.bad = self
        scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._http.socket = context.wrap_socket(
                self._http.socket, server_side=True, do_handshake_on_connect=False
            )
            scheme = "https"
        self.url = f"{scheme}://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )

    def __enter__(self) -> BadServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        for page in self.pages.values():
            page.go_on.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(10)

    def page(self, path: str, data: bytes = b"", **how: Any) -> Page:
        """Serve a page; returns it."""
        page = self.pages[path] = Page(data, **how)
        return page

    @property
    def sent(self) -> int:
        """Bytes of bodies sent."""
        return sum(request.sent for request in self.requests)

    @property
    def ranges(self) -> list[str | None]:
        """The Range headers of all requests."""
        return [request.range for request in self.requests]


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 50
    bad: BadServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients hang up; that is none of our business."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.close_connection = True
        bad = self.server.bad
        request = Request(self.path, {k.lower(): v for k, v in self.headers.items()})
        with bad.lock:
            bad.requests.append(request)
            page = bad.pages.get(urlsplit(self.path).path)
            if page is None:
                page = Page(status=404)
            page.count += 1
            if page.before:
                page.before(page, page.count)
        with contextlib.suppress(OSError):
            self.answer(page, request)

    def answer(self, page: Page, request: Request) -> None:
        headers = dict(page.headers)
        body, start, status = page.data, 0, page.status or 200
        if page.location is not None:
            status, body = 302, b"moved"
            headers["Location"] = page.location
        elif page.status is not None:
            body = b"an error page"
        else:
            if page.etag:
                headers["ETag"] = page.etag
            if page.modified:
                headers["Last-Modified"] = page.modified
            start, status = self.wanted(page, request)
            if status == 206:
                end = len(body) - 1
                headers.setdefault("Content-Range", f"bytes {start}-{end}/{len(body)}")
                body = body[start:]
            elif status == 416:
                headers["Content-Range"] = f"bytes */{len(body)}"
                body = b""
        request.status = status
        if page.chunked:
            headers["Transfer-Encoding"] = "chunked"
        elif not page.no_length:
            headers["Content-Length"] = str(len(body) if page.length is None else page.length)
        lines = [f"HTTP/1.1 {status} {http.server.BaseHTTPRequestHandler.responses[status][0]}"]
        lines += [f"{key}: {value}" for key, value in headers.items()]
        lines += ["Connection: close", "", ""]
        self.send("\r\n".join(lines).encode(), page.drip_headers)
        if page.cut_at is not None and page.cut_at <= start:
            return
        if page.stop_at is not None and page.stop_at <= start:
            page.go_on.wait(60)
        for first, last in self.steps(page, start, len(body)):
            piece = body[first:last]
            if page.chunked:
                self.send(b"%x\r\n%s\r\n" % (len(piece), piece), page.drip)
            else:
                self.send(piece, page.drip)
            request.sent += len(piece)
            if page.stop_at == start + last:
                page.go_on.wait(60)
            if page.cut_at == start + last:
                if page.reset:
                    self.connection.setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                    )
                    self.rfile.close()
                    self.wfile.close()
                    self.connection.close()
                return
        if page.chunked:
            self.send(b"0\r\n\r\n", 0)

    def wanted(self, page: Page, request: Request) -> tuple[int, int]:
        """Offset and status for what is asked for."""
        match = re.fullmatch(r"bytes=(\d+)-", request.range or "")
        if not match or page.ignore_range:
            return 0, 200
        condition = request.headers.get("if-range")
        if condition and not page.ignore_if_range and condition not in (page.etag, page.modified):
            return 0, 200
        start = int(match[1])
        return (start, 206) if start < len(page.data) else (0, 416)

    @staticmethod
    def steps(page: Page, start: int, length: int) -> Iterator[tuple[int, int]]:
        """The body in pieces, none across a place where something is to happen."""
        stops = {length, *range(64 << 10, length, 64 << 10)}
        stops |= {at - start for at in (page.cut_at, page.stop_at) if at is not None}
        before = 0
        for stop in sorted(s for s in stops if 0 < s <= length):
            yield before, stop
            before = stop

    def send(self, data: bytes, drip: float) -> None:
        if not drip:
            self.wfile.write(data)
            return
        for byte in data:
            if self.server.bad.ending.is_set():
                return
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            time.sleep(drip)
