"""Read one URL once, from the start or from where an earlier attempt ended.

HTTP and HTTPS by requests, which takes proxies and CA bundles from the
environment, and ``file://`` for mirrors on a share. Whether, how often and
where else to try is decided in :mod:`.download`.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Callable, NamedTuple
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

if TYPE_CHECKING:
    import requests

__all__ = ["Body", "Changed", "Cut", "Failed", "Version", "open_url", "shown"]

CONNECT_TIMEOUT = 20.0
#: Longest time without any byte.
READ_TIMEOUT = 30.0
#: A transfer that brings less than MIN_BYTES in MIN_BYTES_SECONDS has failed.
#: The answer to a request must begin in that time, too.
MIN_BYTES = 64 << 10
MIN_BYTES_SECONDS = 60.0
MAX_REDIRECTS = 10

_CHUNK = 256 << 10
_AGAIN = (408, 425, 429)  # and all of 5xx
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)\Z")


class Failed(Exception):
    """One attempt failed; the text says why."""

    def __init__(
        self,
        reason: str,
        *,
        retry: bool = True,
        after: float | None = None,
        unreachable: bool = False,
    ) -> None:
        super().__init__(reason)
        self.retry = retry  # the same URL may work later
        self.after = after  # seconds the server asked to wait
        self.unreachable = unreachable  # there was no connection at all


class Changed(Failed):
    """What is there now cannot continue what an earlier attempt received."""


class Cut(Failed):
    """The body ended before its end."""


class Version(NamedTuple):
    """What tells one content at a URL from another."""

    etag: str = ""
    modified: str = ""
    total: int | None = None

    @property
    def condition(self) -> str:
        """The value of an If-Range header, or ``""`` if nothing is fit for one."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified


class Body(NamedTuple):
    """The answer to a request."""

    start: int
    """Where in the file its first byte belongs: what was asked for, or 0."""
    version: Version
    read: Callable[[], bytes]
    """The next bytes, some as soon as there are any; ``b""`` at the end."""


def shown(url: str) -> str:
    """The URL for messages and notes: without a user's name and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def open_url(
    url: str, offset: int, known: Version, *, same: bool, hashed: bool, packed: bool
) -> contextlib.AbstractContextManager[Body]:
    """Ask for a file from ``offset`` on, of which ``known`` was received so far.

    ``same``: that came from this URL, so its ETag and Last-Modified apply.
    ``hashed``: the content will be checked by a hash, so the connection may be
    insecure. ``packed``: the URL is of a packed file. Raises Failed, and so
    does what reads the body.
    """
    if urlsplit(url).scheme == "file":
        return _open_file(url, offset, known, same)
    return _open_http(url, offset, known, same, hashed, packed)


@contextlib.contextmanager
def _open_file(url: str, offset: int, known: Version, same: bool) -> Iterator[Body]:
    path = unquote(urlsplit(url).path)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise Failed(getattr(error, "strerror", None) or str(error), retry=False) from error
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise Failed("not a regular file", retry=False)
        version = Version(f'"{status.st_mtime_ns}"', "", status.st_size)
        start = offset if version.total == known.total else 0
        if same and version != known:
            start = 0
        os.lseek(handle, start, os.SEEK_SET)

        def read() -> bytes:
            try:
                return os.read(handle, _CHUNK)
            except OSError as error:
                raise Failed(error.strerror or str(error)) from error

        yield Body(start, version, read)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _open_http(
    url: str, offset: int, known: Version, same: bool, hashed: bool, packed: bool
) -> Iterator[Body]:
    import requests

    headers = {"Accept-Encoding": "identity", "User-Agent": _user_agent()}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if same and known.condition:
            headers["If-Range"] = known.condition
    with requests.Session() as session, _Watchdog() as watchdog:
        adapter = _watched_adapter(watchdog)
        session.mount("http://", adapter)
        session.mount("https://", adapter)
        with _network_errors(watchdog):
            response = _answer(session, url, headers, hashed)
        if watchdog.bit:  # in the middle of the headers, which is no error below
            response.close()
            raise Failed(_too_slow())
        try:
            start, version = _judge(response, offset, known, same, hashed, packed)
            watchdog.begin()
            yield Body(start, version, _reader(response, watchdog))
        finally:
            response.close()


def _user_agent() -> str:
    from .._version import __version__

    return f"pandalite/{__version__}"


def _answer(
    session: requests.Session, url: str, headers: dict[str, str], hashed: bool
) -> requests.Response:
    """The answer that is no redirection."""
    # By hand: requests reads the body of a redirection, however long, and
    # its error does not say what went round in circles.
    way = [url]
    while True:
        response = session.get(
            way[-1],
            headers=headers,
            stream=True,
            allow_redirects=False,
            timeout=(CONNECT_TIMEOUT, READ_TIMEOUT),
        )
        if response.status_code not in (301, 302, 303, 307, 308):
            return response
        location = session.get_redirect_target(response)
        response.close()
        if not location:
            raise Failed("a redirection that does not say where to", retry=False)
        target = urljoin(way[-1], location)
        scheme = urlsplit(target).scheme
        if scheme not in ("http", "https"):
            raise Failed(f"redirected to {shown(target)}, which is not HTTP", retry=False)
        if urlsplit(way[-1]).scheme == "https" and scheme == "http" and not hashed:
            raise Failed(
                f"redirected to {shown(target)}, which is not secure, and there is no hash "
                "to check the file by",
                retry=False,
            )
        if target in way:
            circle = " -> ".join(shown(u) for u in [*way[way.index(target) :], target])
            raise Failed(f"a redirect loop: {circle}", retry=False)
        if len(way) > MAX_REDIRECTS:
            raise Failed(
                f"more than {MAX_REDIRECTS} redirects, now to {shown(target)}", retry=False
            )
        way.append(target)


def _judge(
    response: requests.Response,
    offset: int,
    known: Version,
    same: bool,
    hashed: bool,
    packed: bool,
) -> tuple[int, Version]:
    """Where the body starts, and of what it is a part."""
    status = response.status_code
    headers = response.headers
    encoding = headers.get("Content-Encoding", "").strip().lower()
    # Some servers say so of a file that is packed itself.
    if encoding not in ("", "identity") and not packed and status in (200, 206):
        raise Failed(f"sent packed ({encoding}) although that was not asked for", retry=False)
    etag, modified = headers.get("ETag", ""), headers.get("Last-Modified", "")
    if status == 200:
        length = headers.get("Content-Length", "").strip()
        chunked = "chunked" in headers.get("Transfer-Encoding", "").lower()
        total = int(length) if re.fullmatch(r"\d{1,18}", length) and not chunked else None
        return 0, Version(etag, modified, total)
    if status == 206 and offset:
        match = _RANGE.match(headers.get("Content-Range", "").strip())
        if not match or int(match[1]) != offset:
            raise Changed("sent another part than was asked for")
        total = None if match[3] == "*" else int(match[3])
        if total is None and int(match[2]) + 1 == known.total:
            total = known.total
        version = Version(etag, modified, total)
        if known.total is not None and total != known.total:
            raise Changed("the file has changed its length since its first part was received")
        # Checked here as well: not every server knows If-Range.
        pairs = [(etag, known.etag), (modified, known.modified)] if same else []
        agree = [now == before for now, before in pairs if now and before]
        if not all(agree) or not (agree or hashed):
            raise Changed("the file has changed since its first part was received")
        return offset, version
    if status == 416 and offset:
        raise Changed("the file has changed since its first part was received")
    reason = f"HTTP {status} {response.reason or ''}".strip()
    if status == 407:
        reason += " (the proxy in the environment's http_proxy or https_proxy wants a password)"
    raise Failed(reason, retry=status in _AGAIN or status >= 500, after=_retry_after(response))


def _retry_after(response: requests.Response) -> float | None:
    import email.utils

    text = response.headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}", text):
        return float(text)
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        return email.utils.parsedate_to_datetime(text).timestamp() - time.time()
    return None


def _reader(response: requests.Response, watchdog: _Watchdog) -> Callable[[], bytes]:
    raw = response.raw
    # read() waits until it has all it was asked for; old urllib3 has no other.
    receive = getattr(raw, "read1", None)
    size = _CHUNK
    if receive is None:
        receive, size = raw.read, 16 << 10

    def read() -> bytes:
        with _network_errors(watchdog):
            data: bytes = receive(size, decode_content=False) or b""
        watchdog.received += len(data)
        if not data and watchdog.bit:
            raise Failed(_too_slow())
        return data

    return read


def _too_slow() -> str:
    return f"too slow: less than {MIN_BYTES} bytes in {MIN_BYTES_SECONDS:g} s"


@contextlib.contextmanager
def _network_errors(watchdog: _Watchdog) -> Iterator[None]:
    """Make Failed of the many exceptions of the layers below."""
    import http.client

    from urllib3.exceptions import HTTPError, IncompleteRead

    try:
        yield
    except Failed:
        raise
    except (OSError, HTTPError, http.client.HTTPException, ValueError) as error:
        if watchdog.bit:
            raise Failed(_too_slow()) from error
        ended = (IncompleteRead, http.client.IncompleteRead)
        if isinstance(error, ended) or any(isinstance(inner, ended) for inner in error.args):
            raise Cut("the transfer was cut short") from error
        reason = _reason(error)
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise Failed(
                f"its certificate is not trusted ({reason}); if this network has its own "
                "certificate authority, set REQUESTS_CA_BUNDLE to the file of its certificate",
                retry=False,
            ) from error
        # A URL that cannot be used is a ValueError, for requests too.
        raise Failed(
            reason,
            retry=not isinstance(error, ValueError),
            unreachable=not watchdog.connected,
        ) from error


def _reason(error: BaseException) -> str:
    """What went wrong in plain words: requests wraps urllib3 wraps the system's error."""
    for _ in range(20):
        below = [getattr(error, "reason", None), *error.args, error.__cause__]
        inner = next((e for e in below if isinstance(e, BaseException)), None)
        if inner is None:
            break
        error = inner
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


class _Watchdog:
    """Ends the connections of a transfer that is too slow, whatever it waits in.

    A timeout alone does not help against a server that sends a byte now and
    then: each begins a new one.
    """

    def __init__(self) -> None:
        self.received = 0  # written by the reader only
        self.bit = False
        self.connected = False
        self._since = time.monotonic()
        self._sockets: list[socket.socket] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="pandalite-download", daemon=True)

    def __enter__(self) -> _Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        for handle in self._sockets:
            handle.close()

    def begin(self) -> None:
        """Count the time from now on."""
        self._since = time.monotonic()

    def add(self, connection: socket.socket) -> None:
        """Watch a connection."""
        self.connected = True
        # A socket of our own for it: the original is taken over by TLS.
        self._sockets.append(connection.dup())

    def _watch(self) -> None:
        since, before = self._since, self.received
        while not self._done.wait(min(1.0, MIN_BYTES_SECONDS / 8)):
            if since != self._since:
                since, before = self._since, self.received
            now = time.monotonic()
            if now - since < MIN_BYTES_SECONDS:
                continue
            if self.received - before < MIN_BYTES:
                self.bit = True
                for handle in list(self._sockets):
                    with contextlib.suppress(OSError):
                        handle.shutdown(socket.SHUT_RDWR)
                # And on: another connection may follow.
                continue
            self._since = since = now
            before = self.received


def _watched_adapter(watchdog: _Watchdog) -> Any:
    """A transport for requests whose connections the watchdog knows."""
    from requests.adapters import HTTPAdapter

    def watched(pool: Any) -> Any:
        base = pool.ConnectionCls

        def _new_conn(self: Any) -> Any:
            connection = base._new_conn(self)
            watchdog.add(connection)
            return connection

        if not hasattr(base, "pandalite"):  # else it is one of these
            pool.ConnectionCls = type(
                base.__name__, (base,), {"_new_conn": _new_conn, "pandalite": True}
            )
        return pool

    class Adapter(HTTPAdapter):
        # The one is called by requests since 2.32, the other before.
        def get_connection_with_tls_context(self, *args: Any, **named: Any) -> Any:
            return watched(super().get_connection_with_tls_context(*args, **named))

        def get_connection(self, *args: Any, **named: Any) -> Any:
            return watched(super().get_connection(*args, **named))

    return Adapter()
