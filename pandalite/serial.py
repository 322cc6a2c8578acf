"""The guest's serial console: typing commands and reading what they print."""

from __future__ import annotations

import re
import sys
import threading
import time
from typing import Any

from ._core import PandaCore
from .errors import BlockingCallError, ConsoleError
from .expect import Expect
from .utils import blocking

#: Seconds a command may take when no timeout is given.
DEFAULT_TIMEOUT = 30.0
_NO_TIMEOUT = 9999.0


class Serial(PandaCore):
    """The part of Panda that talks to the first serial port."""

    serial_unconsumed_data: bytes

    def _init_serial(self, serial_kwargs: dict[str, Any] | None) -> None:
        self.serial_unconsumed_data = b""
        self.serial_console = None
        settings: dict[str, Any] = {
            "expectation": self.expect_prompt,
            "consume_first": False,
            "unansi": True,
            **(serial_kwargs or {}),
        }
        if settings["expectation"]:
            self.serial_console = Expect("serial", on_panic=self._guest_panicked, **settings)

    def _guest_panicked(self, line: str) -> None:
        raise NotImplementedError

    def _console(self) -> Expect:
        self._check_process()
        if threading.get_ident() == self._vcpu_ident:
            raise BlockingCallError(
                "the serial console was used in a callback on the CPU thread: the guest cannot "
                "answer before the callback returns. Queue a function with queue_async()."
            )
        if self.serial_console is None:
            raise ConsoleError(
                "this Panda has no serial console: give expect_prompt=, a regular expression "
                "that matches the guest's shell prompt"
            )
        return self.serial_console

    @blocking
    def run_serial_cmd(
        self, cmd: str | bytes, no_timeout: bool = False, timeout: float | None = None
    ) -> str | None:
        """Type a command, wait for the prompt, return what the command printed.

        Args:
            cmd: the command without newline.
            no_timeout: wait as long as it takes.
            timeout: seconds; default 30.

        Returns:
            The text between the echoed command and the next prompt; None if the
            run ended meanwhile.

        Raises:
            ConsoleError: no console, or it was closed.
            TimeoutExpired: no prompt in time.
            GuestPanic: the guest's kernel panicked.
            BlockingCallError: called in the main thread.
        """
        console = self._console()
        self.running.wait()
        limit = _NO_TIMEOUT if no_timeout else DEFAULT_TIMEOUT if timeout is None else timeout
        return console.command(cmd, timeout=limit)

    @blocking
    def run_serial_cmd_async(self, cmd: str | bytes, delay: float = 1) -> None:
        """Type a command and Enter; do not wait for its end.

        Args:
            cmd: the command without newline.
            delay: seconds to sleep afterwards.
        """
        console = self._console()
        self.running.wait()
        console.sendline(cmd)
        if delay:
            time.sleep(delay)

    @blocking
    def type_serial_cmd(self, cmd: str | bytes) -> None:
        """Type text without Enter."""
        self._console().send(cmd)

    def finish_serial_cmd(self) -> str | None:
        """Press Enter and wait for the prompt; returns what was printed.

        After :meth:`run_serial_cmd_async`, or a :meth:`run_serial_cmd` that timed
        out, Enter was pressed already: then this only waits.
        """
        console = self._console()
        if not console.in_flight():
            console.send_eol()
        return console.expect(timeout=DEFAULT_TIMEOUT)

    @blocking
    def serial_read_until(self, byte_sequence: bytes) -> bytes | None:
        """Read the raw serial output up to a byte sequence.

        Returns:
            The bytes before it; None if the run ended meanwhile.
        """
        return self._console().read_until(byte_sequence)

    @blocking
    def interact(self, confirm_quit: bool = True) -> None:
        """Read command lines from the terminal and run them in the guest.

        Args:
            confirm_quit: ask before ``pandaquit`` leaves.
        """
        console = self._console()
        self.running.wait()
        print("PANDA: commands go to the guest; pandaquit leaves", file=sys.stderr)
        while True:
            try:
                line = input("guest> ")
            except EOFError:
                return
            if line.strip() == "pandaquit":
                if not confirm_quit or re.match("[yY]", input("leave? [y/n] ")):
                    return
                continue
            output = console.command(line, timeout=None)
            if output is None:
                return
            print(output)
