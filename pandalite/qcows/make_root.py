"""Boot a guest and do something at its prompt: run by ``roots.boot``.

``python -m pandalite.qcows.make_root REQUEST``, where REQUEST is a JSON object
with arch, library, qcow, mem, extra_args, timeout, and:

- prompt, snapshot: wait for the prompt and save the machine. ``login``, a user
  name and a password, answers the guest when it asks for them.
- load, snapshot: only try whether the snapshot can be loaded.
- probe: find out what the prompt is, and print it as JSON.

``interface`` is how the disk is attached (``if=``). Ends with status 0 when all
went well, else with 1 and the reason on standard error.

A process of its own, because the core library can run one machine per
process, and because a guest that goes wrong must not take the caller along.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from ..errors import PandaError, SnapshotError, TimeoutExpired

if TYPE_CHECKING:
    from ..expect import Expect

#: Seconds without output after which a guest is taken to wait for input: while it
#: boots, and after Enter was pressed.
SETTLED = 8.0
ANSWERED = 2.0

_NO_PROMPT = "(no prompt of any guest)"
_ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[()].|[=>78cDEHM])")


def make_root(request: dict[str, Any]) -> str:
    """Do what the request says; returns what is to be printed.

    An exception of pandalite when it cannot be done.
    """
    from .. import Panda
    from . import qcow2

    panda = Panda(
        arch=request["arch"],
        mem=request["mem"],
        qcow=request["qcow"],
        expect_prompt=_NO_PROMPT if request.get("probe") else request["prompt"],
        libpanda_path=request["library"],
        extra_args=request["extra_args"],
    )
    panda._disk_interface = request.get("interface") or ""
    found: list[str] = []
    failed: list[Exception] = []

    def act() -> None:
        if request.get("load"):
            panda.revert_sync(request["snapshot"])
            return
        assert panda.serial_console is not None  # as a prompt was given
        if request.get("probe"):
            found.append(find_prompt(panda.serial_console, request))
            return
        reach_prompt(panda.serial_console, request)
        answer = panda.run_monitor_cmd(f"savevm {request['snapshot']}")
        if answer and answer.strip():
            raise SnapshotError(f"savevm said: {answer.strip()}")

    @panda.queue_blocking
    def work() -> None:
        try:
            act()
        except Exception as error:
            # Not left to run(): what is raised while a run ends is passed over.
            failed.append(error)
        finally:
            panda.end_analysis()

    panda.run()
    if failed:
        raise failed[0]
    if request.get("probe"):
        if not found:
            raise SnapshotError("the run ended before a prompt was found")
        return json.dumps({"prompt": found[0]})
    if not any(s.name == request["snapshot"] for s in qcow2.list_snapshots(request["qcow"])):
        raise SnapshotError("the guest ended before its snapshot was saved")
    return ""


def reach_prompt(console: Expect, request: dict[str, Any]) -> None:
    """Wait for the prompt, and log in on the way if that is asked for."""
    deadline = time.monotonic() + request["timeout"]
    answered = ""
    while True:
        left = deadline - time.monotonic()
        try:
            console.expect(timeout=min(2.0, left) if request.get("login") else left)
            return
        except TimeoutExpired:
            if console.at_prompt():
                return
            if time.monotonic() >= deadline:
                raise
            answered = answer(console, request, answered)


def answer(console: Expect, request: dict[str, Any], answered: str) -> str:
    """Give the user name or the password if the guest asks; returns what it had said.

    ``answered`` is what this returned the last time: nothing is answered twice.
    """
    text = console.get_partial()
    user, password = request["login"]
    if text == answered:
        return answered
    if re.search(r"\blogin: *$", text):
        console.sendline(user)
    elif re.search(r"[Pp]assword: *$", text):
        console.sendline(password)
    elif re.search(r"press Enter to activate this console\. *\s*$", text):
        console.send_eol()
    else:
        return answered
    return text


def find_prompt(console: Expect, request: dict[str, Any]) -> str:
    """Wait until the guest is quiet, press Enter twice: what comes back is the prompt."""
    deadline = time.monotonic() + request["timeout"]
    answered = ""
    while True:
        text = _settled(console, SETTLED, deadline)
        if request.get("login"):
            before = answered
            answered = answer(console, request, answered)
            if answered != before:
                continue
        for _ in range(2):
            console.send("\n")
            time.sleep(1)
        prompt = repeated_line(_settled(console, ANSWERED, deadline)[len(text) :])
        if prompt and re.search(r"(login|[Pp]assword): *$", prompt):
            raise TimeoutExpired(
                f"the guest asks for a login ({prompt!r}): give --login USER PASSWORD"
            )
        if prompt:
            return prompt_pattern(prompt)
        if time.monotonic() >= deadline:
            raise TimeoutExpired(_no_prompt(console, request))


def _settled(console: Expect, quiet: float, deadline: float) -> str:
    """What the guest said, once it has said nothing for ``quiet`` seconds."""
    text = console.get_partial()
    since = time.monotonic()
    while time.monotonic() < since + quiet or not text:
        if time.monotonic() >= deadline:
            break
        time.sleep(0.2)
        now = console.get_partial()
        if now != text:
            text, since = now, time.monotonic()
    return text


def _no_prompt(console: Expect, request: dict[str, Any]) -> str:
    said = console.get_partial()[-500:]
    hint = f"the last it said: {said!r}" if said else "it said nothing on its first serial port"
    return (
        f"no prompt was found in {request['timeout']:.0f} s: Enter was not answered with the same "
        f"line twice ({hint}). Is a shell on the first serial port (console=ttyS0)? Give --prompt, "
        "or --login, or a longer --timeout"
    )


def repeated_line(text: str) -> str:
    """The line that came back after each Enter, with its trailing spaces; "" if none."""
    plain = _ESCAPES.sub("", text).replace("\r", "").replace("\x07", "")
    lines = [line for line in plain.split("\n") if line.strip()]
    if len(lines) < 2 or plain.endswith("\n"):
        return ""
    last = lines[-1]
    return last if sum(line.rstrip() == last.rstrip() for line in lines) >= 2 else ""


def prompt_pattern(prompt: str) -> str:
    """A regular expression for a prompt; one that shows the directory fits anywhere."""
    usual = re.fullmatch(r"(\[?[\w.-]+@[\w.-]+[: ])(~|/\S*)(\]?[#$%>] ?)", prompt)
    if usual:
        return f"{_escaped(usual[1])}.*{_escaped(usual[3])}"
    return _escaped(prompt)


def _escaped(text: str) -> str:
    """Like ``re.escape``, without the backslashes nobody needs."""
    return re.sub(r"([\\.^$*+?{}\[\]|()])", r"\\\1", text)


def _die_with_parent() -> None:
    """Have the kernel kill this process when the one that waits for it is killed."""
    import ctypes

    pr_set_pdeathsig = 1
    parent = os.getppid()
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it was killed before the call
        os._exit(1)


def main(arguments: list[str]) -> int:
    """The command; returns the exit status."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    _die_with_parent()
    try:
        text = make_root(json.loads(arguments[0]))
    except TimeoutExpired as error:
        print(f"the guest did not reach its prompt: {error}", file=sys.stderr)
        return 1
    except PandaError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    if text:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
