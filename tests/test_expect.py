"""The serial console, against a scripted guest and against real shells on a pty."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import shutil
import socket
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from pandalite.errors import ConsoleError, GuestPanic, PandaError, TimeoutExpired
from pandalite.expect import Expect, render_terminal

PROMPT = "root@ubuntu:.*#"
PS = b"root@ubuntu:~# "


class Guest:
    """A scripted guest on the other end of a socketpair."""

    def __init__(self, prompt: str | bytes = PROMPT, **kwargs: object) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.theirs.settimeout(5)
        self.console = Expect("test", expectation=prompt, unansi=True, **kwargs)  # type: ignore[arg-type]
        self.console.connect(self.ours)
        self.threads: list[threading.Thread] = []

    def say(self, data: bytes) -> None:
        self.theirs.sendall(data)

    def hear(self) -> bytes:
        """One line as the console typed it."""
        data = b""
        while not data.endswith(b"\n"):
            piece = self.theirs.recv(1)
            if not piece:
                break
            data += piece
        return data

    def script(self, *steps: bytes | float) -> None:
        """Hear a line, then say the steps, with pauses where there are numbers."""

        def run() -> None:
            self.hear()
            for step in steps:
                if isinstance(step, bytes):
                    self.say(step)
                else:
                    time.sleep(step)

        thread = threading.Thread(target=run)
        thread.start()
        self.threads.append(thread)

    def close(self) -> None:
        self.console.close()
        for thread in self.threads:
            thread.join(10)
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def guest() -> Iterator[Guest]:
    made = Guest()
    yield made
    made.close()


def run(guest: Guest, command: str, *steps: bytes | float, timeout: float = 5) -> str | None:
    guest.script(*steps)
    return guest.console.command(command, timeout=timeout)


# --- output of a command, from a scripted guest ---


@pytest.mark.parametrize(
    ("command", "said", "output"),
    [
        ("ls", b"ls\r\na\r\nb\r\n" + PS, "a\nb"),
        ("true", b"true\r\n" + PS, ""),
        ("printf abc", b"printf abc\r\nabc" + PS, "abc"),
        ("echo; echo x; echo", b"echo; echo x; echo\r\n\r\nx\r\n\r\n" + PS, "\nx\n"),
        # the prompt's pattern ends in `#`, and so do lines of the output
        ("x", b"x\r\nroot@ubuntu:~# fake\r\na#\r\n" + PS, "root@ubuntu:~# fake\na#"),
        ("x", b"x\r\nroot@ubuntu: # b " + PS, "root@ubuntu: # b "),
        # wrapped: busybox, readline, an older busybox, a dumb terminal
        ("echo aaaa bbbb", b"echo aa\r\r\naa bbbb\r\nout\r\n" + PS, "out"),
        ("echo aaaa bbbb", b"echo aa \raa bb \rbb\r\nout\r\n" + PS, "out"),
        ("echo aaaa bbbb", b"echo aa\x08aaa bb \x08bb \x08\r\nout\r\n" + PS, "out"),
        ("echo aaaa bbbb", b"\r<aa bbbb\r\nout\r\n" + PS, "out"),
        ("echo aaaa bbbb cc", b"echo aaaa b\r<aaa bbb   \x08\x08b cc\r\nout\r\n" + PS, "out"),
        # colours, titles, paste mode
        (
            "ls",
            b"\x1b[?2004hls\r\n\x1b[?2004l\r\x1b[01;34mdir\x1b[0m\r\n\x1b]0;title\x07\x1b[?2004h"
            b"\x1b[01;32mroot@ubuntu\x1b[0m:\x1b[34m~\x1b[0m# ",
            "dir",
        ),
        # a kernel message amid the echo
        ("uname -a", b"una[    1.234567] random: init\r\nme -a\r\nLinux\r\n" + PS, "Linux"),
        # no echo at all
        ("ls", b"a\r\n" + PS, "a"),
        ("true", PS, ""),
        # the guest's locale cannot show it
        ("echo \u20ac", b"echo ?\r\nx\r\n" + PS, "x"),
        ("echo \u20ac", b"echo \\342\\202\\254\r\nx\r\n" + PS, "x"),
        ("a\x01b", b"a^Ab\r\nx\r\n" + PS, "x"),
        # QEMU's monitor
        ("ab", b"a\x1b[K\x1b[Dab\x1b[K\r\nx\r\n" + PS, "x"),
        # the end of the old prompt comes late
        ("ls", b" ls\r\nx\r\n" + PS, "x"),
        # the shell was not ready: echo by the terminal, then by its editor
        ("ls -l", b"boot\r\nroot@ubuntu:~# ls -l\r\nx\r\n" + PS, "x"),
        # progress bars, man pages, screens
        ("x", b"x\r\n 10%\r 50%\r100%\r\nN\x08NA\x08AM\x08M\r\n" + PS, "100%\nNAM"),
        ("x", b"x\r\nold\r\n\x1b[H\x1b[2Jnew\r\n" + PS, "new"),
        ("x", b"x\r\n\x1b[?1049hvi\r\n\x1b[?1049lafter\r\n" + PS, "after"),
        ("x", b"x\r\nabc\x1b[2Dx\x1b[K\r\n" + PS, "ax"),
        # bytes that are no text
        ("x", b"x\r\n\xff\xe2\x82\xac\tz\r\n" + PS, "\\xff\u20ac\tz"),
    ],
)
def test_output(guest: Guest, command: str, said: bytes, output: str) -> None:
    assert run(guest, command, said) == output


def test_output_in_single_bytes(guest: Guest) -> None:
    said = b"echo \xe2\x82\xac\r\n\x1b[1m\xe2\x82\xac\x1b[0m\r\n" + PS
    pieces: list[bytes | float] = []
    for index in range(len(said)):
        pieces += [said[index : index + 1], 0.001]
    assert run(guest, "echo \u20ac", *pieces) == "\u20ac"


def test_prompt_text_that_is_not_yet_all(guest: Guest) -> None:
    """A pause shorter than the quiet time after the prompt's text is no prompt."""
    guest.console.quiet_time = 0.3
    output = run(guest, "x", b"x\r\n" + PS, 0.05, b"not a prompt\r\nend\r\n" + PS)
    assert output == "root@ubuntu:~# not a prompt\nend"


def test_prompt_text_in_the_echo(guest: Guest) -> None:
    """However slowly the echo comes, no prompt is looked for in it."""
    output = run(guest, "echo root@ubuntu:#1", b"echo root@ubuntu:#", 0.2, b"1\r\nx\r\n" + PS)
    assert output == "x"


def test_two_prompts_in_turn(guest: Guest) -> None:
    assert run(guest, "a", b"a\r\n1\r\n" + PS) == "1"
    assert run(guest, "b", b"b\r\n2\r\n" + PS) == "2"


def test_kernel_messages_between_commands_are_no_output(guest: Guest) -> None:
    guest.say(PS)
    assert guest.console.expect(timeout=5) == ""
    guest.say(b"[    9.000000] usb: hello\r\n")
    time.sleep(0.05)
    assert run(guest, "b", b"b\r\n2\r\n" + PS) == "2"


def test_kernel_message_after_the_prompt(guest: Guest) -> None:
    output = run(guest, "b", b"b\r\n2\r\n" + PS, b"[   12.345678] random: crng init done\r\n")
    assert output == "2"


def test_first_prompt_without_a_command(guest: Guest) -> None:
    guest.say(b"booting\r\n\r\nBusyBox\r\n" + PS + b"\x1b[6n")
    assert guest.console.expect(timeout=5) == "booting\n\nBusyBox"
    assert guest.console.at_prompt() is False  # consumed


def test_without_unansi_colours_stay() -> None:
    ours, theirs = socket.socketpair()
    console = Expect("test", ours, expectation="u:~# ")
    try:
        theirs.sendall(b"\x1b[1mred\x1b[0m\r\n\x1b[?2004h\x1b[32mu\x1b[0m:~# ")
        assert console.expect(timeout=5) == "\x1b[1mred\x1b[0m"
        theirs.sendall(b"a\x1b[1mb\x1b[0m\x1b[32mu\x1b[0m:~# ")
        output = console.expect(timeout=5)
        assert output is not None and output.startswith("a\x1b[1mb\x1b[0m")
        assert "u" not in output
    finally:
        console.close()
        ours.close()
        theirs.close()


def test_large_output_is_fast_and_whole(guest: Guest) -> None:
    block = b"".join(b"%07d \x1b[32m%s\x1b[0m\r\n" % (i, b"x" * 80) for i in range(40000))
    began = time.process_time()
    output = run(guest, "cat f", b"cat f\r\n" + block + PS, timeout=20)
    spent = time.process_time() - began
    assert output is not None and output.count("\n") == 39999
    assert output.startswith("0000000 xxx") and output.endswith("x")
    assert spent < 2, "linear in the size of the output"


def test_large_output_of_one_line_is_fast(guest: Guest) -> None:
    piece = b"abc\r" + b"y" * 4000
    began = time.process_time()
    steps: list[bytes | float] = [b"cat f\r\n"]
    for _ in range(500):
        steps.append(piece)
    output = run(guest, "cat f", *steps, b"\r\n", PS, timeout=20)
    assert output is not None and len(output) == 4003
    assert time.process_time() - began < 2


def test_guest_that_prints_while_nobody_reads() -> None:
    guest = Guest(buffer_limit=100_000)
    try:
        for _ in range(40):
            guest.say(b"z" * 49_999 + b"\n")  # would block without the reader
        guest.say(PS)
        output = guest.console.expect(timeout=5)
        assert output is not None and 50_000 < len(output) <= 125_000
        assert guest.console.dropped > 1_500_000
    finally:
        guest.close()


def test_command_of_several_lines(guest: Guest) -> None:
    def play() -> None:
        assert guest.hear() == b"for i in 1 2\n"
        guest.say(b"for i in 1 2\r\n> ")
        assert guest.hear() == b"do echo $i; done\n"
        guest.say(b"do echo $i; done\r\n1\r\n2\r\n" + PS)
        assert guest.hear() == b"echo x\n"
        guest.say(b"echo x\r\nx\r\n" + PS)

    thread = threading.Thread(target=play)
    thread.start()
    assert guest.console.command("for i in 1 2\ndo echo $i; done\necho x\n", 5) == "1\n2\nx"
    thread.join()


def test_typed_and_finished_later(guest: Guest) -> None:
    guest.say(PS)
    guest.console.expect(timeout=5)
    guest.console.send(b"echo ")
    guest.say(b"echo ")
    guest.console.send("hi")
    guest.say(b"hi")
    guest.script(b"\r\nhi\r\n" + PS)
    guest.console.send_eol()
    assert guest.console.expect(timeout=5) == "hi"


def test_asynchronous_command_then_another(guest: Guest) -> None:
    guest.script(b"a\r\nfrom a\r\n" + PS)
    guest.console.sendline(b"a")
    guest.threads[-1].join()
    time.sleep(0.1)
    assert guest.console.at_prompt()
    assert run(guest, "b", b"b\r\nfrom b\r\n" + PS) == "from b"


# --- when it goes wrong ---


def test_timeout_tells_what_the_guest_said_and_recovers(guest: Guest) -> None:
    guest.script(b"sleep 9\r\nzzz")
    with pytest.raises(TimeoutExpired, match=r"(?s)'sleep 9'.*timeout=.*zzz"):
        guest.console.command("sleep 9", timeout=0.2)
    assert guest.console.get_partial() == "sleep 9\nzzz"
    # The first command ends after the second was typed.
    output = run(guest, "echo b", b"echo b\r\nlate\r\n" + PS + b"echo b\r\nb\r\n" + PS)
    assert output == "b"
    # The same with a shell that has no line editor.
    guest.script(b"sleep 9\r\n")
    with pytest.raises(TimeoutExpired):
        guest.console.command("sleep 9", timeout=0.2)
    assert run(guest, "echo c", b"echo c\r\nlate\r\n" + PS + b"c\r\nd\r\n" + PS) == "c\nd"


def test_timeout_names_the_open_quote(guest: Guest) -> None:
    guest.script(b"echo 'a\r\n> ")
    with pytest.raises(TimeoutExpired, match="not closed"):
        guest.console.command("echo 'a", timeout=0.2)


def test_expect_after_timeout_continues(guest: Guest) -> None:
    guest.script(b"slow\r\na\r\n", 0.4, b"b\r\n" + PS)
    with pytest.raises(TimeoutExpired):
        guest.console.command("slow", timeout=0.2)
    assert guest.console.expect(timeout=5) == "a\nb"


def test_end_of_file_wakes_the_waiter(guest: Guest) -> None:
    guest.script(b"a\r\nlast words", 0.05)
    threading.Timer(0.2, guest.theirs.shutdown, (socket.SHUT_RDWR,)).start()
    began = time.monotonic()
    with pytest.raises(ConsoleError, match="last words"):
        guest.console.command("a", timeout=20)
    assert time.monotonic() - began < 5
    assert not guest.console.is_connected()
    with pytest.raises(ConsoleError):
        guest.console.sendline(b"x")


def test_not_connected() -> None:
    console = Expect("serial", expectation="#")
    for call in (console.expect, console.sendline, lambda: console.read_until(b"x")):
        with pytest.raises(RuntimeError, match="not connected"):
            call()
    assert console.is_connected() is False
    with pytest.raises(ConsoleError):
        console.connect(10_000)


def test_arguments(guest: Guest) -> None:
    with pytest.raises(ValueError, match="update_expectation"):
        guest.console.expect("x")
    with pytest.raises(ValueError, match="at position 1") as caught:
        guest.console.update_expectation("a(")
    assert isinstance(caught.value, PandaError)
    with pytest.raises(ValueError):
        guest.console.read_until(b"")
    guest.console.update_expectation(b"(?i)READY> ")
    guest.say(b"hello\r\nready> ")
    assert guest.console.expect(timeout=5) == "hello"


@pytest.mark.parametrize("pattern", [".*# ?", "^root@ubuntu:[^#]*# ", "[#$] $"])
def test_prompt_patterns(pattern: str) -> None:
    guest = Guest(pattern)
    try:
        output = run(guest, "ls", b"ls\r\nx\r\n" + PS)
        assert output is not None and output.split("\n")[0] == "x"
        if not pattern.startswith("["):
            assert output == "x"
    finally:
        guest.close()


PANIC = (
    b"[    1.500000] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000000\r\n"
    b"[    1.500001] CPU: 0 PID: 1 Comm: init\r\n"
)
PANIC_END = b"[    1.600000] ---[ end Kernel panic - not syncing: Attempted to kill init! ]---\r\n"


def test_panic(guest: Guest) -> None:
    told: list[str] = []
    guest.console.on_panic = told.append
    began = time.monotonic()
    guest.script(b"x\r\n" + PANIC[:30], PANIC[30:], 0.1, PANIC_END)
    with pytest.raises(GuestPanic, match=r"(?s)Attempted to kill init!.*Comm: init"):
        guest.console.command("x", timeout=20)
    assert time.monotonic() - began < 1.5
    deadline = time.monotonic() + 5
    while not told and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(told) == 1 and told[0].startswith("the guest's kernel panicked: Kernel panic")
    with pytest.raises(GuestPanic):  # still, as long as nothing new is typed
        guest.console.expect(timeout=5)
    # The guest was reverted.
    guest.console.reset()
    assert run(guest, "b", b"b\r\n2\r\n" + PS) == "2"


def test_panic_without_end_mark(guest: Guest) -> None:
    guest.script(b"x\r\n" + PANIC)
    with pytest.raises(GuestPanic):
        guest.console.command("x", timeout=20)


def test_text_about_a_panic_is_no_panic(guest: Guest) -> None:
    told: list[str] = []
    guest.console.on_panic = told.append
    said = b"dmesg\r\n" + PANIC + b"see: ---[ end Kernel panic\r\n" + PS
    assert run(guest, "cat f", b"cat f\r\ntext: Kernel panic - not syncing: x\r\n" + PS)
    output = run(guest, "dmesg", said.replace(b"end Kernel", b"End kernel"))
    assert output is not None and "Attempted" in output
    time.sleep(2.2)
    assert told == []
    assert run(guest, "b", b"b\r\n2\r\n" + PS) == "2"


# --- abort, raw reads, queries, logs, threads ---


def test_abort(guest: Guest) -> None:
    threading.Timer(0.1, guest.console.abort).start()
    assert guest.console.expect(timeout=20) is None
    threading.Timer(0.1, guest.console.abort, (KeyboardInterrupt(),)).start()
    with pytest.raises(KeyboardInterrupt):
        guest.console.expect(timeout=None)
    threading.Timer(0.1, guest.console.abort).start()
    assert guest.console.read_until(b"x") is None
    guest.console.abort(sticky=True)
    assert guest.console.command("x", timeout=20) is None
    guest.console.resume()
    guest.console.reset()
    guest.hear()
    assert run(guest, "b", b"b\r\n2\r\n" + PS) == "2"


def test_read_until(guest: Guest) -> None:
    guest.say(b"\x1b[1mlog")
    threading.Timer(0.05, guest.say, (b"in: ",)).start()
    assert guest.console.read_until(b"login: ", timeout=5) == b"\x1b[1m"
    guest.say(b"a;b;c")
    assert guest.console.read_until(";", timeout=5) == b"a"
    assert guest.console.read_until(b";", timeout=5) == b"b"
    with pytest.raises(TimeoutExpired, match="c"):
        guest.console.read_until(b";", timeout=0.1)
    assert guest.console.consume_partial() == "c"
    assert guest.console.get_partial() == ""
    guest.theirs.shutdown(socket.SHUT_RDWR)
    with pytest.raises(ConsoleError):
        guest.console.read_until(b";", timeout=5)


def test_cursor_query_is_answered_only_when_idle(guest: Guest) -> None:
    guest.say(b"\x1b[6")
    time.sleep(0.05)
    guest.say(b"n")
    assert guest.theirs.recv(64) == b"\x1b[1;1R"
    assert run(guest, "cat f", b"cat f\r\n\x1b[6n\r\n" + PS) == ""
    guest.theirs.settimeout(0.2)
    with pytest.raises(socket.timeout):
        guest.theirs.recv(64)


def test_query_after_the_prompt_ends_the_wait_at_once(guest: Guest) -> None:
    guest.console.quiet_time = 3
    began = time.monotonic()
    assert run(guest, "a", b"a\r\n1\r\n" + PS + b"\x1b[6n") == "1"
    assert time.monotonic() - began < 1.5


def test_log(guest: Guest, tmp_path: Path) -> None:
    guest.console.set_logging(tmp_path / "log")
    assert run(guest, "a", b"a\r\n1\r\n" + PS) == "1"
    assert (tmp_path / "log").read_bytes() == b"a\r\n1\r\n" + PS
    with pytest.raises(ConsoleError):
        guest.console.set_logging(tmp_path / "none" / "log")


def test_consume_first() -> None:
    guest = Guest(r"\(qemu\) ", consume_first=True)
    try:
        guest.say(b"QEMU 10 monitor\r\n(qemu) ")
        assert run(guest, "info name", b"info name\r\nx\r\n(qemu) ") == "x"
    finally:
        guest.close()


def test_close_ends_thread_and_wakes_waiter() -> None:
    threads = set(threading.enumerate())
    descriptors = len(os.listdir("/proc/self/fd"))
    guest = Guest()
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            guest.console.expect(timeout=30)
        except ConsoleError as exc:
            caught.append(exc)

    waiter = threading.Thread(target=wait)
    waiter.start()
    time.sleep(0.1)
    guest.close()
    waiter.join(5)
    assert len(caught) == 1
    assert set(threading.enumerate()) == threads
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_waiting_costs_no_cpu(guest: Guest) -> None:
    began = time.process_time()
    with pytest.raises(TimeoutExpired):
        guest.console.expect(timeout=1)
    assert time.process_time() - began < 0.1


def test_render_terminal_bounds_hostile_movements() -> None:
    text = "a\x1b[999999999Cb\x1b[999999999Bc\x1b[999999999;999999999Hd\x1b[5Te\x1b[?9zf"
    assert len(render_terminal(text)) < 100_000


# --- real shells, with a terminal so narrow that every command wraps ---


class Shell:
    """A shell on a pty, bridged to a console's socket."""

    def __init__(self, argv: list[str], columns: int, term: str, slow: bool) -> None:
        self.ours, bridge = socket.socketpair()
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        env = {
            "PATH": os.environ["PATH"], "PS1": "root@ubuntu:~# ", "TERM": term,
            "LC_ALL": "C.UTF-8", "HISTFILE": "/dev/null", "HOME": "/nonexistent",
        }  # fmt: skip
        # setsid -c makes the pty the shell's controlling terminal.
        self.process = subprocess.Popen(
            ["setsid", "-c", *argv], stdin=slave, stdout=slave, stderr=slave, env=env
        )
        os.close(slave)
        self.thread = threading.Thread(target=self._bridge, args=(bridge, master, slow))
        self.thread.start()
        self.console = Expect("shell", self.ours, expectation=PROMPT, unansi=True)
        self.console.expect(timeout=10)

    @staticmethod
    def _bridge(sock: socket.socket, master: int, slow: bool) -> None:
        with contextlib.suppress(OSError):
            while True:
                ready = select.select([sock.fileno(), master], [], [])[0]
                if master in ready:
                    sock.sendall(os.read(master, 4096))
                else:
                    # As a UART: the shell sees the command byte by byte.
                    data = sock.recv(1 if slow else 4096)
                    if not data:
                        break
                    os.write(master, data)
                    if slow:
                        time.sleep(0.0005)
        os.close(master)
        sock.close()

    def close(self) -> None:
        self.console.close()
        self.ours.close()
        self.process.kill()
        self.process.wait()
        self.thread.join(5)


def _shells() -> list[object]:
    found: list[object] = []
    for name, argv, term, slow in [
        ("sh", ["/bin/sh", "-i"], "linux", True),
        ("bash", ["bash", "--norc", "--noprofile", "-i"], "linux", False),
        ("bash-slow", ["bash", "--norc", "--noprofile", "-i"], "vt220", True),
        ("bash-dumb", ["bash", "--norc", "--noprofile", "-i"], "dumb", False),
        ("bash-dumb-slow", ["bash", "--norc", "--noprofile", "-i"], "dumb", True),
        ("busybox", ["busybox", "ash", "-i"], "linux", False),
        ("busybox-slow", ["busybox", "ash", "-i"], "linux", True),
    ]:
        missing = shutil.which(argv[0]) is None
        mark = pytest.mark.skipif(missing, reason=f"{argv[0]} is not installed")
        found.append(pytest.param((argv, term, slow), id=name, marks=mark))
    return found


@pytest.fixture(params=_shells())
def shell(request: pytest.FixtureRequest) -> Iterator[Callable[[int], Expect]]:
    argv, term, slow = request.param
    made: list[Shell] = []

    def make(columns: int) -> Expect:
        made.append(Shell(argv, columns, term, slow))
        return made[-1].console

    yield make
    for one in made:
        one.close()


def test_real_shell(shell: Callable[[int], Expect]) -> None:
    console = shell(31)
    run = console.command
    assert run("echo hello") == "hello"
    assert run("true") == ""
    assert run("printf abc") == "abc"
    assert run(r"printf 'a\n\nb\n\n'") == "a\n\nb\n"
    words = " ".join(f"word{i}" for i in range(30))
    assert run(f"echo {words}") == words
    assert run(f"echo '{'x  y' * 40}'") == "x  y" * 40
    assert run("echo 'root@ubuntu:~# not a prompt #'") == "root@ubuntu:~# not a prompt #"
    assert run("echo root@ubuntu:; echo '#'") == "root@ubuntu:\n#"
    assert run(r"printf '\033[31mred\033[0m\tx\n'") == "red\tx"
    assert run("echo caf\u00e9 \u20ac and much more text that wraps \u00fc\u00fc\u00fc") == (
        "caf\u00e9 \u20ac and much more text that wraps \u00fc\u00fc\u00fc"
    )
    assert run("for i in 1 2\ndo echo $i\ndone\necho end") == "1\n2\nend"
    assert run("cat <<EOF\nline > one\n> two\nEOF") == "line > one\n> two"
    assert run("sleep 0.3; echo late") == "late"
    assert run("") == ""


def test_real_shell_at_every_width(shell: Callable[[int], Expect]) -> None:
    """Wherever the margin falls: in a word, at a blank, at the command's very end."""
    console = shell(30)
    # The prompt and `echo ''` take 22 columns of 30.
    for length in (1, *range(6, 11), *range(36, 41)):
        text = ("ab cd  e" * 10)[:length].rstrip()
        assert console.command(f"echo '{text}'") == text, length


def test_real_shell_large_output(shell: Callable[[int], Expect]) -> None:
    console = shell(80)
    command = "i=0; while [ $i -lt 3000 ]; do echo line$i; i=$((i+1)); done"
    output = console.command(command)
    assert output is not None
    assert output.split("\n") == [f"line{i}" for i in range(3000)]


def test_real_shell_type_ahead(shell: Callable[[int], Expect]) -> None:
    console = shell(50)
    with pytest.raises(TimeoutExpired):
        console.command("sleep 0.6; echo first", timeout=0.2)
    assert console.command("echo second", timeout=10) == "second"
    assert console.command("echo third", timeout=10) == "third"
