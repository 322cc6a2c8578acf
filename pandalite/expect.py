"""The guest's serial console: send commands, get their output.

:class:`Expect` owns one end of a byte stream (a socket whose other end is
QEMU's character device). A reader thread drains it always, so a guest that
prints while nobody reads never stalls. What a command printed is found as a
human reading a terminal would find it: the text between the echoed command and
the next prompt.

How the prompt is recognised: the last line of the stream ends with text that
matches the prompt's pattern, and the guest then says nothing more for
:attr:`Expect.quiet_time`. That the line comes last is what tells a prompt from
the same text inside a command's output.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import threading
import time
from collections.abc import Iterator
from typing import BinaryIO, Callable, NamedTuple, Protocol, Union

from .errors import ConsoleError, GuestPanic, PandaError, TimeoutExpired
from .utils import warn

__all__ = ["BadPromptError", "Expect", "render_terminal"]

_BytesOrStr = Union[str, bytes]

_RECV = 1 << 16
_DRAIN = 1 << 20  # take in at most this much before waiters are looked after
_TAIL = 4096  # a prompt lies within this many bytes of the stream's end
_PROMPT_TEXT = 1024  # ... and within this many characters, once rendered
_STALE_PROMPT = 1.0  # a prompt overwritten by kernel messages counts after this (s)
_PANIC_SILENCE = 2.0  # a panic line without its end mark counts after this (s)
_UNASKED_LINE = 1.0  # a further line is sent after this without a prompt (s)
_MAX_COLUMN = 4096
_MAX_ROWS_JUMP = 1000


class BadPromptError(PandaError, ValueError):
    """The pattern given for the guest's prompt is no regular expression."""


class _HasFileno(Protocol):
    def fileno(self) -> int: ...


# --- the terminal's language ------------------------------------------------------

_CSI = r"\x1b\[[0-?]*[ -/]*[@-~]"
_STRING = r"\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)"  # window titles and the like
_OTHER = r"\x1b[ -/]*[0-OQ-WYZ\\`-~]"
_ESCAPE = f"(?:{_CSI}|{_STRING}|{_OTHER})"
_ESCAPE_BYTES = re.compile(_ESCAPE.encode())
# Sequences that only colour or switch modes: they leave the text where it is.
_HARMLESS = re.compile(
    rf"\x1b\[[0-9;:]*m|\x1b\[\?(?!47|1047|1049)[0-9;]*[hl]|\x1b\[[0-9;]*n|{_STRING}"
)
_SPECIAL = re.compile(r"[\x00\x07\x08\x0e\x0f\x1b\r]")
_TOKEN = re.compile(
    rf"\x1b\[(?P<args>[0-?]*)[ -/]*(?P<csi>[@-~])|(?P<esc>{_STRING}|{_OTHER}|\x1b)"
    r"|(?P<control>[\x00\x07\x08\x0e\x0f\r\n])|(?P<text>[^\x00\x07\x08\x0e\x0f\x1b\r\n]+)"
)
_PASTE_MODE = re.compile(r"\x1b\[\?2004[hl]\r?")
_CURSOR_QUERY = b"\x1b[6n"
_CURSOR_ANSWER = b"\x1b[1;1R"

_PRINTK = r"(?:<\d+>)?\[ *\d+\.\d{6}\](?:\[ *[TC]\d+\])? ?"
_PRINTK_LINE = re.compile(rf"{_PRINTK}[^\r\n]*\r*\n".encode())
_PRINTK_START = re.compile(_PRINTK)
_PANIC = b"Kernel panic - not syncing"
_PANIC_HEAD = re.compile(rf"(?:\A(?:<\d+>)?|{_PRINTK})\Z".encode())
_PANIC_END = b"end Kernel panic"
_SECONDARY = re.compile(r"> ?\Z")


class _Screen:
    """A terminal of unlimited width and length that only remembers text."""

    def __init__(self) -> None:
        self._lines: list[list[str]] = [[]]
        self._row = 0
        self._col = 0
        self._saved = (0, 0)
        self._main: tuple[list[list[str]], int, int] | None = None

    def feed(self, text: str) -> None:
        for token in _TOKEN.finditer(text):
            kind = token.lastgroup
            if kind == "text":
                self._write(token["text"])
            elif kind == "control":
                self._control(token["control"])
            elif kind == "csi":
                self._csi(token["args"], token["csi"])
            elif token["esc"] == "\x1b7":
                self._saved = (self._row, self._col)
            elif token["esc"] == "\x1b8":
                self._goto(*self._saved)

    def text(self) -> str:
        return "\n".join("".join(line) for line in self._lines)

    def _write(self, text: str) -> None:
        line = self._lines[self._row]
        if len(line) < self._col:
            line.extend(" " * (self._col - len(line)))
        line[self._col : self._col + len(text)] = text
        self._col += len(text)

    def _control(self, char: str) -> None:
        if char == "\n":
            self._goto(self._row + 1, 0)
        elif char == "\r":
            self._col = 0
        elif char == "\b":
            self._col = max(0, self._col - 1)

    def _goto(self, row: int, col: int) -> None:
        self._row, self._col = max(0, row), max(0, col)
        while len(self._lines) <= self._row:
            self._lines.append([])

    def _csi(self, args: str, final: str) -> None:
        if args.startswith("?"):
            if args[1:] in ("47", "1047", "1049"):
                self._alternate(final == "h")
            return
        numbers = [min(int(n), _MAX_COLUMN) if n.isdigit() else 0 for n in args.split(";")]
        first = numbers[0]
        count = first or 1
        line = self._lines[self._row]
        if final == "A":
            self._goto(self._row - count, self._col)
        elif final in "BE":
            bottom = max(len(self._lines) - 1, 0) + _MAX_ROWS_JUMP
            self._goto(min(self._row + count, bottom), 0 if final == "E" else self._col)
        elif final == "F":
            self._goto(self._row - count, 0)
        elif final == "C":
            self._col = min(self._col + count, max(_MAX_COLUMN, self._col))
        elif final == "D":
            self._col = max(0, self._col - count)
        elif final in "G`":
            self._col = count - 1
        elif final == "d":
            self._goto(min(count, _MAX_ROWS_JUMP) - 1, self._col)
        elif final in "Hf":
            column = (numbers[1] if len(numbers) > 1 else 0) or 1
            self._goto(min(count, _MAX_ROWS_JUMP) - 1, column - 1)
        elif final == "K":
            if first == 0:
                del line[self._col :]
            else:
                end = len(line) if first == 2 else min(self._col + 1, len(line))
                line[:end] = " " * end
        elif final == "J":
            self._erase(first)
        elif final == "P":
            del line[self._col : self._col + count]
        elif final == "@":
            line[self._col : self._col] = " " * count
        elif final == "X":
            end = min(self._col + count, len(line))
            line[self._col : end] = " " * max(0, end - self._col)
        elif final == "s":
            self._saved = (self._row, self._col)
        elif final == "u":
            self._goto(*self._saved)

    def _erase(self, what: int) -> None:
        if what == 0:
            del self._lines[self._row][self._col :]
            del self._lines[self._row + 1 :]
        elif what == 1:
            for line in self._lines[: self._row]:
                line.clear()
            line = self._lines[self._row]
            end = min(self._col + 1, len(line))
            line[:end] = " " * end
        else:
            self._lines = [[] for _ in range(self._row + 1)]

    def _alternate(self, enter: bool) -> None:
        # A full-screen program's picture disappears when it ends.
        if enter and self._main is None:
            self._main = (self._lines, self._row, self._col)
            self._lines, self._row, self._col = [[]], 0, 0
        elif not enter and self._main is not None:
            self._lines, self._row, self._col = self._main
            self._main = None


def render_terminal(text: str) -> str:
    """Return what a terminal would show after ``text`` was written to it.

    Colours, titles and modes are dropped; carriage returns, backspaces, cursor
    movements and erasures take effect. The terminal is as wide as needed, with
    its upper left corner where the text begins. Tabs stay.
    """
    if "\r" in text:
        text = re.sub(r"\r+\n", "\n", text)
    if "\x1b" in text:
        text = _HARMLESS.sub("", text)
    if _SPECIAL.search(text) is None:
        return text
    screen = _Screen()
    screen.feed(text)
    return screen.text()


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def _plain_newlines(text: str) -> str:
    return re.sub(r"\r+\n", "\n", text)


# --- the echo of a command ----------------------------------------------------------


class _Echo(NamedTuple):
    """What came of looking for a command's echo."""

    state: str  # "done", "partial" (more must come) or "none"
    end: int  # where the command's output begins


_ESC, _CR, _LF, _BS, _TAB, _SPACE, _BELL = 0x1B, 0x0D, 0x0A, 0x08, 0x09, 0x20, 0x07


def _find_echo(data: bytes, start: int, command: bytes) -> _Echo:
    """Match the echo of ``command`` at ``start``, up to and with its newline.

    The echo differs from the command where the line editor wraps it. Observed:
    readline prints `` \\r`` at the margin; busybox prints ``\\r\\r\\n``, older
    ones the next character and a backspace; readline on a dumb terminal scrolls
    sideways (``\\r<``) and never shows the whole command; QEMU's monitor goes
    left and shows the line again for each character; a line discipline without
    editor does nothing. Kernel messages may come in between.
    """
    pos, size, i, n = start, len(data), 0, len(command)
    moves: list[int] = []  # how far each visible character advanced i
    redrawn = False  # the cursor went left
    while pos < size:
        byte = data[pos]
        if byte == _ESC:
            escape = _ESCAPE_BYTES.match(data, pos)
            if escape is None and size - pos < 256:
                return _Echo("partial", pos)
            pos = escape.end() if escape is not None else pos + 1
            redrawn = redrawn or (escape is not None and escape.group().endswith(b"D"))
        elif byte == _LF:
            pos += 1
            if i == n:
                return _Echo("done", pos)
            if command[i] == _LF:
                i += 1
                pos = _skip_secondary(data, pos, command[i : i + 2])
        elif byte in (_CR, _BELL, 0):
            pos += 1
            if byte == _CR and data[pos : pos + 1] == b"<" and command[i : i + 1] != b"<":
                return _drop_line(data, pos)
        elif byte == _BS:
            pos += 1
            if moves:
                i -= moves.pop()
        elif byte == _SPACE and _is_margin(data, pos):
            pos += 1
        elif i < n and byte == command[i]:
            if byte == _SPACE and data[pos + 1 :] in (b"", b"\r"):
                return _Echo("partial", pos)  # cannot tell a margin yet
            pos, i = pos + 1, i + 1
            moves.append(1)
        elif byte == 0x5B and (message := _PRINTK_LINE.match(data, pos)) is not None:
            pos = message.end()
        elif i < n and (step := _substitute(data, pos, command, i)) is not None:
            pos, i = pos + step[0], i + step[1]
        elif byte == _SPACE and (i == 0 or command[i - 1] == _TAB):
            pos += 1  # the rest of the prompt, or a tab shown as spaces
        elif byte == _SPACE and data[pos + 1 : pos + 2] in (b"", b"\b"):
            pos += 1
            moves.append(0)
        elif (i >= min(n, 8) or redrawn) and n:
            # Enough to know that there is an echo, in a shape not known: a line
            # editor prints no newline before the command is accepted.
            return _drop_line(data, pos)
        else:
            return _Echo("none", start)
    return _Echo("partial", pos)


def _drop_line(data: bytes, pos: int) -> _Echo:
    newline = data.find(b"\n", pos)
    return _Echo("partial", pos) if newline < 0 else _Echo("done", newline + 1)


def _is_margin(data: bytes, pos: int) -> bool:
    """Whether the blank at ``pos`` is readline's way of going to the next row."""
    return data[pos + 1 : pos + 2] == b"\r" and data[pos + 2 : pos + 3] not in (b"", b"\n", b"\r")


def _skip_secondary(data: bytes, pos: int, following: bytes) -> int:
    """Skip the shell's ``> `` before a further line of a command."""
    match = re.compile(rb"(?:\r|" + _ESCAPE.encode() + rb")*> ").match(data, pos)
    return match.end() if match is not None and following != b"> " else pos


def _substitute(data: bytes, pos: int, command: bytes, i: int) -> tuple[int, int] | None:
    """How an editor shows what it will not show as it is: (shown, typed) lengths."""
    typed = command[i]
    if typed >= 0x80:
        width = 1
        while i + width < len(command) and command[i + width] & 0xC0 == 0x80:
            width += 1
        if data[pos : pos + 1] == b"?":
            return 1, width
        if data[pos : pos + 4] == b"\\%03o" % typed:
            return 4, 1
        return None
    if typed != _LF and (typed < 0x20 or typed == 0x7F):
        if data[pos : pos + 2] == bytes((0x5E, typed ^ 0x40)):
            return 2, 1
        return 0, 1  # e.g. a tab that was taken as a request for completion
    return None


# --- the console ----------------------------------------------------------------------


class _Prompt:
    """A prompt's pattern and how to find it at the end of a line."""

    def __init__(self, pattern: _BytesOrStr) -> None:
        text = _decode(pattern) if isinstance(pattern, bytes) else pattern
        self.text = text
        # Flags that concern the whole pattern must stay in front.
        flags = re.match(r"(?:\(\?[aiLmsux]+\))*", text)
        split = flags.end() if flags is not None else 0
        try:
            re.compile(text)
            self._regex = re.compile(rf"{text[:split]}(?:{text[split:]})\s*\Z")
            self._start = re.compile(text)
        except re.error as exc:
            where = f" at position {exc.pos}" if exc.pos is not None else ""
            raise BadPromptError(
                f"the prompt {text!r} is not a regular expression: {exc.msg}{where}. "
                "Use re.escape() if it is meant literally."
            ) from exc
        # `.*#` is meant to be the whole line, whatever comes before the `#`.
        self._whole_line = text[split:].startswith((".*", "^"))

    def find(self, line: str) -> int | None:
        """Where the prompt that ends ``line`` begins, or None.

        The last place wins, as PyPANDA's greedy ``(.*)`` in front has it: text
        that a command left before the prompt is not part of the prompt.
        """
        if self._whole_line:
            return 0 if self._regex.match(line) else None
        for start in range(len(line), max(0, len(line) - _PROMPT_TEXT) - 1, -1):
            match = self._regex.match(line, start)
            if match is not None and match.group().strip():
                return start
        return None

    def begins(self, line: str) -> int | None:
        """Where the prompt that begins ``line`` ends, or None."""
        match = self._start.match(line)
        return match.end() if match is not None and match.group().strip() else None


class _Hit(NamedTuple):
    """A prompt that was found: stream offsets."""

    output: int  # where the output begins
    end: int  # where the prompt ends
    noise: int  # where kernel messages after the prompt begin; == end if none
    echo: str  # state of the echo


class _Link:
    """An open connection and the thread that reads it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.wake_read, self.wake_write = os.pipe()
        self.closing = False
        self.thread: threading.Thread | None = None

    def wake(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self.wake_write, b"x")

    def dispose(self) -> None:
        for fd in (self.fd, self.wake_read, self.wake_write):
            with contextlib.suppress(OSError):
                os.close(fd)
        self.fd = -1


class Expect:
    """A console on which commands are typed and prompts awaited.

    Only one thread at a time may wait; others may send, abort and look.

    Args:
        name: shown in messages and in the log file's name.
        filelike: connect to this at once, see :meth:`connect`.
        expectation: the prompt, see :meth:`update_expectation`.
        logfile_base: log to ``<logfile_base>_<name>.txt``.
        consume_first: await a first prompt before the first send.
        unansi: return output as a terminal would show it, without ANSI sequences.
        on_panic: called once, from the reader thread, with a message when the
            guest's kernel panics.
        buffer_limit: bytes kept that nobody has read yet; older ones are dropped.

    Attributes:
        quiet_time: seconds without output after which text that looks like the
            prompt is the prompt.
        dropped: how many bytes were dropped because nobody read them.
    """

    quiet_time = 0.03

    def __init__(
        self,
        name: str,
        filelike: int | _HasFileno | None = None,
        expectation: _BytesOrStr | None = None,
        logfile_base: str | None = None,
        consume_first: bool = False,
        unansi: bool = False,
        *,
        on_panic: Callable[[str], None] | None = None,
        buffer_limit: int = 64 << 20,
    ) -> None:
        self.name = name
        self.consume_first = consume_first
        self.use_unansi = unansi
        self.on_panic = on_panic
        self.dropped = 0
        self._limit = buffer_limit
        self._prompt: _Prompt | None = None
        self._write_lock = threading.Lock()
        self._cond = threading.Condition(threading.Lock())
        # Everything below is guarded by _cond. Offsets count the stream's bytes;
        # _buffer holds those from _base on.
        self._link: _Link | None = None
        self._was_connected = False
        self._eof = ""
        self._buffer = bytearray()
        self._base = 0
        self._read = 0  # consumed up to here
        self._mark = 0  # the command in flight was sent here
        self._sent = bytearray()  # what was typed since the last prompt
        self._behind = False  # an earlier command had not ended when this was sent
        self._unasked = False  # a line of a command was sent before it was asked for
        self._echo: _Echo | None = None
        self._last_rx = 0.0
        self._asked_at = -1  # end of the last cursor query
        self._data_waiters = 0
        self._last_prompt = ""
        self._panic: tuple[int, str] | None = None
        self._panic_note = ""
        self._panic_told = False
        self._suspect: int | None = None
        self._abort_count = 0
        self._abort_exception: BaseException | None = None
        self._abort_stays = False
        self._log: BinaryIO | None = None

        if expectation is not None:
            self.update_expectation(expectation)
        if logfile_base:
            self.set_logging(f"{logfile_base}_{name}.txt")
        if filelike is not None:
            self.connect(filelike)

    # --- connection ---

    def connect(self, filelike: int | _HasFileno) -> None:
        """Use this stream from now on, and start to read it.

        The console works on its own duplicate of the descriptor, which it makes
        non-blocking; closing the original stays the caller's business.

        Args:
            filelike: a file descriptor, or an object with ``fileno()``.

        Raises:
            ConsoleError: the descriptor is not usable.
        """
        self.close()
        try:
            fd = os.dup(filelike if isinstance(filelike, int) else filelike.fileno())
        except (OSError, ValueError) as exc:
            raise ConsoleError(f"cannot connect the {self.name} console: {exc}") from exc
        os.set_blocking(fd, False)
        link = _Link(fd)
        link.thread = threading.Thread(
            target=self._reader, args=(link,), name=f"pandalite-{self.name}", daemon=True
        )
        with self._cond:
            self._link = link
            self._was_connected = True
            self._eof = ""
            self._last_rx = time.monotonic()
            self._forget()
        link.thread.start()

    def is_connected(self) -> bool:
        """Whether there is a stream that has not ended."""
        with self._cond:
            return self._link is not None and not self._eof

    def close(self) -> None:
        """Stop reading and let go of the stream; waiters get a ConsoleError."""
        with self._cond:
            link, self._link = self._link, None
            if link is not None:
                link.closing = True
                self._eof = "it was closed"
                self._cond.notify_all()
        if link is None:
            return
        link.wake()
        if link.thread is not None and link.thread is not threading.current_thread():
            link.thread.join(5)
        with self._write_lock:
            link.dispose()

    def reset(self) -> None:
        """Forget what the guest said and what it was told.

        To be called when the guest becomes another one, i.e. after a snapshot
        was loaded or the machine was reset.
        """
        with self._cond:
            self._forget()

    def set_logging(self, path: str | os.PathLike[str] | None) -> None:
        """Append every byte the guest prints to a file; None ends that.

        Raises:
            ConsoleError: the file cannot be opened.
        """
        new: BinaryIO | None = None
        if path is not None:
            try:
                new = open(path, "ab", buffering=0)  # noqa: SIM115 (kept open)
            except OSError as exc:
                raise ConsoleError(f"cannot log the {self.name} console: {exc}") from exc
        with self._cond:
            old, self._log = self._log, new
        if old is not None:
            old.close()

    def update_expectation(self, expectation: _BytesOrStr) -> None:
        """Set the prompt: a regular expression.

        It is looked for at the end of the last line. What stands before it on
        that line is the end of a command's output that has no newline.

        Raises:
            BadPromptError: it is not a regular expression (a ValueError).
        """
        prompt = _Prompt(expectation)
        with self._cond:
            self._prompt = prompt
            self._cond.notify_all()

    # --- sending ---

    def send(self, msg: _BytesOrStr) -> None:
        """Type ``msg``; there is no newline added.

        With ``consume_first`` the first call awaits the first prompt.

        Raises:
            ConsoleError: not connected, or the other end is closed.
            TimeoutExpired: the guest takes no input.
        """
        if self.consume_first:
            self.consume_first = False
            self.expect()
        data = msg.encode() if isinstance(msg, str) else bytes(msg)
        if not data:
            return
        # Held throughout: an answer to a cursor query must not get between.
        with self._write_lock:
            with self._cond:
                link = self._require_link()
                if b"\n" in self._sent:
                    self._settle_previous()
                if not self._sent:
                    self._mark = self._end
                    self._echo = None
                    self._behind = self._behind or self._unasked
                    self._unasked = False
                    self._panic_forgive()
                self._sent += data
            self._write(link, data)

    def sendline(self, msg: _BytesOrStr = b"") -> None:
        """Type ``msg`` and Enter."""
        self.send((msg.encode() if isinstance(msg, str) else bytes(msg)) + b"\n")

    def send_eol(self) -> None:
        """Press Enter."""
        self.sendline()

    def _settle_previous(self) -> None:
        """Another command is sent although nobody awaited the previous one's end."""
        self._behind = self._prompt_at_end() is None
        self._sent.clear()

    def _panic_forgive(self) -> None:
        # The guest may have been reverted since; if not, the timeout says so.
        if self._panic is not None:
            self._panic_note = self._panic[1].splitlines()[0]
            self._panic = None
            self._panic_told = False

    def _write(self, link: _Link, data: bytes, patience: float = 30.0) -> None:
        view = memoryview(data)
        deadline = time.monotonic() + patience
        seen = self._abort_count
        while view:
            try:
                view = view[os.write(link.fd, view) :]
                continue
            except BlockingIOError:
                pass  # the guest has not read hundreds of kilobytes: wait below
            except OSError as exc:
                raise ConsoleError(
                    f"cannot send to the {self.name} console: {exc.strerror}. "
                    "Is the machine still there?"
                ) from exc
            if self._abort_count != seen or link.closing:
                return
            if time.monotonic() > deadline:
                raise TimeoutExpired(
                    f"the guest took no input from the {self.name} console for {patience:g} s: "
                    "is it running?"
                )
            poller = select.poll()
            poller.register(link.fd, select.POLLOUT)
            poller.poll(100)

    # --- waiting ---

    def expect(
        self, expectation: _BytesOrStr | None = None, timeout: float | None = 30
    ) -> str | None:
        """Wait for the prompt; return what was printed before it.

        If something was typed since the last prompt, that is: the text between
        its echo and the prompt, without the last newline, with ``\\n`` as line
        end. Invalid UTF-8 appears as ``\\xNN``.

        Args:
            expectation: must be None (as in PyPANDA); use
                :meth:`update_expectation`.
            timeout: seconds, or None for no limit.

        Returns:
            The text, or None if :meth:`abort` was called.

        Raises:
            ValueError: an expectation was given.
            ConsoleError: not connected, no prompt set, or the console closed.
            TimeoutExpired: no prompt in time; what came stays readable.
            GuestPanic: the guest's kernel panicked.
        """
        if expectation:
            raise ValueError("expect() takes no pattern; set it with update_expectation()")
        deadline = None if timeout is None else time.monotonic() + timeout
        return self._expect(deadline, timeout, more=False)

    def command(self, cmd: _BytesOrStr, timeout: float | None = 30) -> str | None:
        """Type a command, wait for the prompt, return what the command printed.

        A command of several lines is typed line by line, each after the shell
        asked for it; the result is the output of all.

        Args:
            cmd: the command, without the final newline.
            timeout: seconds for everything, or None for no limit.

        Returns, raises: as :meth:`expect`.
        """
        data = cmd.encode() if isinstance(cmd, str) else bytes(cmd)
        lines = data.rstrip(b"\n").split(b"\n")
        deadline = None if timeout is None else time.monotonic() + timeout
        parts: list[str] = []
        for index, line in enumerate(lines):
            self.sendline(line)
            part = self._expect(deadline, timeout, more=index + 1 < len(lines))
            if part is None:
                return None
            if part:
                parts.append(part)
        return "\n".join(parts)

    def in_flight(self) -> bool:
        """Whether a command was entered whose end nobody has awaited."""
        with self._cond:
            return self._sent.endswith(b"\n")

    def at_prompt(self) -> bool:
        """Whether the last thing the guest printed looks like the prompt."""
        with self._cond:
            return self._prompt_at_end() is not None

    def read_until(self, byte_sequence: _BytesOrStr, timeout: float | None = None) -> bytes | None:
        """Read the raw stream up to a byte sequence.

        The sequence itself is consumed and not returned; what follows it stays.

        Args:
            byte_sequence: what to wait for.
            timeout: seconds, or None for no limit.

        Returns:
            The bytes before the sequence, or None if :meth:`abort` was called.

        Raises:
            ValueError: the sequence is empty.
            ConsoleError: not connected, or the console closed.
            TimeoutExpired: it did not come in time; nothing is consumed.
            GuestPanic: the guest's kernel panicked.
        """
        wanted = byte_sequence.encode() if isinstance(byte_sequence, str) else bytes(byte_sequence)
        if not wanted:
            raise ValueError("read_until() needs a sequence of at least one byte")
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._cond:
            self._require_link(even_ended=True)
            seen = self._abort_count
            searched = self._read
            while True:
                if self._aborted(seen):
                    return None
                begin = max(searched, self._base)
                found = self._buffer.find(wanted, begin - self._base)
                if found >= 0:
                    first = max(self._read, self._base) - self._base
                    result = bytes(self._buffer[first:found])
                    self._consume(self._base + found + len(wanted))
                    return result
                searched = max(self._read, self._end - len(wanted) + 1)
                self._raise_if_dead(self._read)
                left = self._time_left(deadline)
                if left is not None and left <= 0:
                    raise TimeoutExpired(
                        f"{wanted!r} did not come from the {self.name} console within "
                        f"{timeout:g} s. {self._last_words()}"
                    )
                self._wait_for_data(left)

    def abort(self, exception: BaseException | None = None, *, sticky: bool = False) -> None:
        """Wake whoever waits: the wait returns None, or raises ``exception``.

        Args:
            exception: what to raise in the waiting thread.
            sticky: also end every later wait at once, until :meth:`resume`.
        """
        with self._cond:
            self._abort_count += 1
            self._abort_exception = exception
            self._abort_stays = sticky
            self._cond.notify_all()

    def resume(self) -> None:
        """End the effect of a sticky :meth:`abort`."""
        with self._cond:
            self._abort_stays = False
            self._abort_exception = None

    # --- looking ---

    def get_partial(self) -> str:
        """What came since the last prompt was consumed; it stays readable."""
        with self._cond:
            data = bytes(self._buffer[max(self._read, self._base) - self._base :])
        text = _decode(data)
        return render_terminal(text) if self.use_unansi else _plain_newlines(text)

    def consume_partial(self) -> str:
        """What came since the last prompt was consumed; it is consumed now."""
        with self._cond:
            data = bytes(self._buffer[max(self._read, self._base) - self._base :])
            self._consume(self._base + len(self._buffer))
        text = _decode(data)
        return render_terminal(text) if self.use_unansi else _plain_newlines(text)

    def unansi(self) -> str:
        """What came since the last prompt, as a terminal would show it."""
        with self._cond:
            data = bytes(self._buffer[max(self._read, self._base) - self._base :])
        return render_terminal(_decode(data))

    # --- waiting: the machinery. _cond is held in all of these unless said ---

    @property
    def _end(self) -> int:
        return self._base + len(self._buffer)

    def _require_link(self, even_ended: bool = False) -> _Link:
        link = self._link
        if link is None or (self._eof and not even_ended):
            why = self._eof or "nothing was connected"
            raise ConsoleError(
                f"the {self.name} console is not connected ({why}). The machine must have been "
                "started with a prompt to expect (expect_prompt=...)."
            )
        return link

    def _forget(self) -> None:
        self._consume(self._end)
        self._last_prompt = ""
        self._unasked = False
        self._panic = None
        self._panic_note = ""
        self._panic_told = False

    def _consume(self, upto: int) -> None:
        """Everything before ``upto`` is done with, and so is what was typed."""
        self._read = upto
        self._mark = upto
        self._sent.clear()
        self._behind = False
        self._echo = None
        # A guest that came to its prompt only printed a text about a panic.
        self._suspect = None
        del self._buffer[: max(0, upto - self._base)]
        self._base = max(upto, self._base)

    def _aborted(self, seen: int) -> bool:
        if self._abort_count == seen and not self._abort_stays:
            return False
        if self._abort_exception is not None:
            raise self._abort_exception
        return True

    def _raise_if_dead(self, since: int) -> None:
        if self._panic is not None and self._panic[0] >= since:
            raise GuestPanic(self._panic[1])
        if self._eof:
            raise ConsoleError(
                f"the {self.name} console ended ({self._eof}): the machine is gone or was "
                f"stopped. {self._last_words()}"
            )

    @staticmethod
    def _time_left(deadline: float | None) -> float | None:
        return None if deadline is None else deadline - time.monotonic()

    def _wait_for_data(self, limit: float | None) -> None:
        self._data_waiters += 1
        try:
            self._cond.wait(limit)
        finally:
            self._data_waiters -= 1

    def _expect(self, deadline: float | None, timeout: float | None, more: bool) -> str | None:
        with self._cond:  # acquires
            self._require_link(even_ended=True)
            if self._prompt is None:
                raise ConsoleError(
                    f"the {self.name} console has no prompt to expect: give expect_prompt=..., or "
                    "call update_expectation()"
                )
            hit = self._await_prompt(deadline, timeout, more)
            if hit is None:
                return None
            prompt = self._prompt
            raw = bytes(self._buffer[hit.output - self._base : hit.end - self._base])
            if hit.noise < hit.end:
                raw = raw[: hit.noise - hit.output]
            command = bytes(self._sent).rstrip(b"\n")
            behind = self._behind
            literal = self._last_prompt
            self._consume(hit.end)
        # The work on megabytes of text happens without the lock.
        text = _decode(raw)
        if command and (behind or hit.echo == "none"):
            text = _after_last_echo(raw, text, command, prompt, literal, behind)
        lines, last = self._present(text)
        at = self._split_last(prompt, last, more)
        lead, shown = last[:at], last[at:]
        if not _SECONDARY.match(shown) and shown.strip():
            self._last_prompt = shown.rstrip()
        if lead:
            return f"{lines}{lead}"
        return lines[:-1] if lines.endswith("\n") else lines

    def _present(self, text: str) -> tuple[str, str]:
        """(All lines but the last with their newlines, the last line)."""
        text = _PASTE_MODE.sub("", text)
        text = render_terminal(text) if self.use_unansi else _plain_newlines(text)
        cut = text.rfind("\n") + 1
        return text[:cut], text[cut:]

    @staticmethod
    def _split_last(prompt: _Prompt, line: str, more: bool) -> int:
        at = prompt.find(line)
        if at is not None:
            return at
        rendered = render_terminal(line)
        at = prompt.find(rendered)
        if at is not None:
            # Colours are kept in the output, so the prompt's place in the
            # uncoloured line must be mapped back: skip as many characters.
            position = 0
            while at > 0 and position < len(line):
                escape = re.compile(_ESCAPE).match(line, position)
                if escape is not None:
                    position = escape.end()
                else:
                    position, at = position + 1, at - 1
            # What ends the output's colour belongs to the output.
            reset = re.compile(r"(?:\x1b\[0?m)*").match(line, position)
            return reset.end() if reset is not None else position
        return 0 if more and _SECONDARY.match(rendered) else len(line)

    def _await_prompt(
        self, deadline: float | None, timeout: float | None, more: bool
    ) -> _Hit | None:
        seen = self._abort_count
        checked = -1
        stale: tuple[int, float] | None = None  # a prompt with messages after it
        while True:
            if self._aborted(seen):
                return None
            now = time.monotonic()
            limits = [] if deadline is None else [deadline - now]
            fresh = self._end != checked
            if fresh:
                quiet_left = self._last_rx + self.quiet_time - now
                if quiet_left <= 0 or self._asked_at == self._end or self._eof:
                    checked, fresh = self._end, False
                    hit = self._check(more)
                    if hit is not None:
                        return hit
                    overwritten = self._overwritten_prompt()
                    if overwritten is None:
                        stale = None
                    elif stale is None or stale[0] != overwritten:
                        stale = (overwritten, now)
                else:
                    limits.append(quiet_left)
            if stale is not None and not fresh:
                if now - stale[1] >= _STALE_PROMPT:
                    return self._hit(stale[0])
                limits.append(stale[1] + _STALE_PROMPT - now)
            self._raise_if_dead(self._read)
            if more and not fresh and self._echo_done():
                # A line for a program that asks with no prompt, e.g. `cat`.
                silent = now - self._last_rx
                if silent >= _UNASKED_LINE:
                    self._unasked = True
                    return self._hit(self._end)
                limits.append(_UNASKED_LINE - silent)
            if deadline is not None and now >= deadline:
                raise TimeoutExpired(self._timeout_message(timeout))
            limit = min(limits) if limits else None
            if fresh:
                # Data keeps coming: no need to be woken for each piece.
                self._cond.wait(limit)
            else:
                self._wait_for_data(limit)

    def _echo_done(self) -> bool:
        return self._echo is None or self._echo.state != "partial"

    def _output_start(self) -> int | None:
        """Where the output begins; None while the echo is incomplete."""
        start = max(self._mark if self._sent else self._read, self._base)
        if not self._sent or self._behind:
            return start
        if self._echo is None or self._echo.state == "partial":
            command = bytes(self._sent)
            if command.endswith(b"\n"):
                command = command[:-1]
            first = start - self._base
            head = bytes(self._buffer[first : first + 8 * len(command) + 65536])
            found = _find_echo(head, 0, command)
            self._echo = _Echo(found.state, start + found.end)
        if self._echo.state == "partial":
            return None
        return max(self._echo.end, self._base)

    def _check(self, more: bool) -> _Hit | None:
        start = self._output_start()
        if start is None or self._prompt is None:
            return None
        line = self._last_line(start)
        rendered = render_terminal(line)
        if (
            self._prompt.find(rendered) is None
            and (self.use_unansi or self._prompt.find(line) is None)
            and not (more and _SECONDARY.match(rendered))
        ):
            return None
        return self._hit(self._end)

    def _hit(self, prompt_end: int) -> _Hit:
        start = self._output_start()
        echo = self._echo.state if self._echo is not None else "done"
        return _Hit(self._base if start is None else start, self._end, prompt_end, echo)

    def _last_line(self, start: int) -> str:
        low = max(start - self._base, len(self._buffer) - _TAIL, 0)
        low = max(low, self._buffer.rfind(b"\n", low) + 1)
        return _decode(bytes(self._buffer[low:]))

    def _prompt_at_end(self) -> int | None:
        if self._prompt is None:
            return None
        return self._prompt.find(render_terminal(self._last_line(max(self._mark, self._base))))

    def _overwritten_prompt(self) -> int | None:
        """The end of a prompt after which only kernel messages came, or None.

        The kernel prints where the cursor is, and the shell does not repeat its
        prompt: ``root@guest:~# [   12.345678] random: crng init done``.
        """
        start = self._output_start()
        if start is None or self._prompt is None:
            return None
        low = max(start - self._base, len(self._buffer) - _TAIL, 0)
        tail = bytes(self._buffer[low:])
        position = len(tail)
        for line in reversed(tail.split(b"\n")):
            position -= len(line)
            text = _decode(line)
            message = _PRINTK_START.search(text)
            if message is not None and message.start() > 0:
                head = text[: message.start()]
                if self._prompt.find(render_terminal(head)) is not None:
                    return self._base + low + position + len(head.encode(errors="replace"))
                return None
            if message is None and line.strip():
                return None
            position -= 1
        return None

    def _last_words(self, size: int = 600) -> str:
        tail = _decode(bytes(self._buffer[-size:]))
        shown = render_terminal(tail).strip("\n")
        if not shown.strip():
            return "The guest said nothing."
        return f"The last of what the guest said:\n{shown}"

    def _timeout_message(self, timeout: float | None) -> str:
        prompt = self._prompt.text if self._prompt is not None else ""
        command = _decode(bytes(self._sent)).strip()
        after = f" after {_shorten(command)!r}" if command else ""
        text = f"no prompt {prompt!r} on the {self.name} console within {timeout or 0:g} s{after}."
        if self._panic_note:
            text += f" The guest's kernel had panicked: {self._panic_note}."
        elif not self._echo_done() and len(command) > 1000:
            text += (
                f" The command has {len(command)} characters, more than the guest's line editor "
                "may take: put it in a file (copy_to_guest)."
            )
        elif _SECONDARY.match(render_terminal(self._last_line(self._read))):
            text += " The shell asks for more: a quote or a loop of the command is not closed."
        else:
            text += (
                " Give a longer timeout=..., or correct expect_prompt if the last line below is "
                "a prompt."
            )
        return f"{text} {self._last_words()}"

    # --- the reader thread ---

    def _reader(self, link: _Link) -> None:
        poller = select.poll()
        poller.register(link.fd, select.POLLIN)
        poller.register(link.wake_read, select.POLLIN)
        while not link.closing:
            with self._cond:
                suspicious = self._suspect is not None
                silence = self._last_rx + _PANIC_SILENCE - time.monotonic()
            # Timed only while a panic is to be confirmed.
            poller.poll(max(0, int(silence * 1000) + 1) if suspicious else None)
            if link.closing:
                return
            data, ended = self._drain(link.fd)
            with self._cond:
                if link.closing:
                    return
                message = self._take(data, ended)
                callback = self.on_panic
                answer = self._wants_answer(data)
            if answer:
                self._answer(link)
            if message is not None and callback is not None:
                try:
                    callback(message)
                except Exception as exc:
                    warn(f"on_panic of the {self.name} console failed: {exc!r}")
            if ended:
                return

    @staticmethod
    def _drain(fd: int) -> tuple[bytes, str]:
        """Read what is there: (bytes, why the stream ended or "")."""
        pieces: list[bytes] = []
        total = 0
        ended = ""
        while total < _DRAIN:
            try:
                piece = os.read(fd, _RECV)
            except BlockingIOError:
                break
            except OSError as exc:  # a pty says EIO, a socket ECONNRESET
                ended = exc.strerror or str(exc)
                break
            if not piece:
                ended = "end of file"
                break
            pieces.append(piece)
            total += len(piece)
        return b"".join(pieces), ended

    def _take(self, data: bytes, ended: str) -> str | None:
        """Store what was read; return a message if the guest has panicked now."""
        before = self._end
        if data:
            if self._log is not None:
                try:
                    self._log.write(data)
                except OSError as exc:
                    warn(f"the log of the {self.name} console ends here: {exc}")
                    self._log.close()
                    self._log = None
            self._buffer += data
            self._last_rx = time.monotonic()
            # Trimmed in large steps, as every trim moves the rest.
            if len(self._buffer) > self._limit + (self._limit >> 2):
                excess = len(self._buffer) - self._limit
                del self._buffer[:excess]
                self._base += excess
                self.dropped += excess
        if ended:
            self._eof = ended
        asked = self._buffer.rfind(_CURSOR_QUERY, max(0, before - self._base - 3))
        if asked >= 0:
            self._asked_at = self._base + asked + len(_CURSOR_QUERY)
        message = self._look_for_panic(before)
        if ended or message or self._data_waiters or self._asked_at == self._end:
            self._cond.notify_all()
        return message

    def _look_for_panic(self, before: int) -> str | None:
        if self._panic_told:
            return None
        low = max(0, before - self._base - len(_PANIC) + 1)
        if self._suspect is None:
            for found in _all(self._buffer, _PANIC, low):
                line = self._buffer.rfind(b"\n", max(0, found - 200), found) + 1
                # At the start of a line, possibly after the kernel's time stamp:
                # anything else is a text that speaks of a panic.
                if _PANIC_HEAD.search(self._buffer[line:found]):
                    self._suspect = self._base + line
                    break
        if self._suspect is None:
            return None
        since = max(0, self._suspect - self._base)
        certain = self._buffer.find(_PANIC_END, max(since, low - 200)) >= 0
        if not certain:
            # No end mark (kernels before 3.15, or text from a file): decide when
            # the guest is silent; one at its prompt is alive.
            if not self._eof and time.monotonic() - self._last_rx < _PANIC_SILENCE:
                return None
            if self._prompt_at_end() is not None:
                self._suspect = None
                return None
        text = render_terminal(_decode(bytes(self._buffer[since:]))).strip()
        first, *rest = text.splitlines() or ["Kernel panic"]
        message = f"the guest's kernel panicked: {_PRINTK_START.sub('', first, count=1)}"
        if rest:
            message += "\nThe last of what it said:\n" + "\n".join(rest[-40:])
        self._panic = (self._end, message)
        self._panic_told = True
        self._suspect = None
        return message

    def _wants_answer(self, data: bytes) -> bool:
        """Whether the guest's question for the cursor position gets an answer.

        busybox asks after every prompt and does not wait; `resize` and systemd
        wait for seconds. While a command is in flight there is none: the answer
        could arrive when the program reads the terminal, and would be echoed
        into its output (e.g. `cat` of a file that holds the question).
        """
        return bool(data) and self._asked_at > self._end - len(data) and not self._sent

    def _answer(self, link: _Link) -> None:
        # Whoever holds the lock is typing, and then no answer is due. The reader
        # must not wait for it: a typist may wait for the guest, and that for us.
        if not self._write_lock.acquire(blocking=False):
            return
        try:
            with self._cond:
                if self._sent or link.closing:
                    return
            with contextlib.suppress(OSError):
                os.write(link.fd, _CURSOR_ANSWER)
        finally:
            self._write_lock.release()


def _all(data: bytearray, what: bytes, low: int) -> Iterator[int]:
    while (found := data.find(what, low)) >= 0:
        yield found
        low = found + 1


def _shorten(text: str, size: int = 100) -> str:
    return text if len(text) <= size else f"{text[: size - 3]}..."


def _after_last_echo(
    raw: bytes, text: str, command: bytes, prompt: _Prompt, literal: str, behind: bool
) -> str:
    """The output of a command that was typed before the shell was ready for it.

    The terminal echoed it at once, the shell's editor shows it again after the
    prompt; the output follows the last prompt that has the command behind it.
    """
    key = command[:16].split(b"\n")[0]
    high = len(raw)
    for _ in range(1000):
        found = raw.rfind(key, 0, high)
        if found < 0:
            break
        line = raw.rfind(b"\n", 0, found) + 1
        head = render_terminal(_decode(raw[line:found]))
        if head and prompt.find(head) is not None:
            echo = _find_echo(raw, found, command)
            if echo.state == "done":
                return _decode(raw[echo.end :])
        high = found + len(key) - 1
    if behind:
        # A shell without an editor does not show it again: its prompt and the
        # output are on one line.
        cut = text.rfind("\n")
        for _ in range(10000):
            if cut < 0:
                break
            start = text.rfind("\n", 0, cut) + 1
            line_text = text[start:cut]
            if literal and line_text.startswith(literal):
                return text[start + len(literal) :].lstrip(" ")
            end = prompt.begins(line_text)
            if end is not None:
                return text[start + end :].lstrip(" ")
            cut = start - 1
        echo = _find_echo(raw, 0, command)
        if echo.state == "done":
            return _decode(raw[echo.end :])
    return text
