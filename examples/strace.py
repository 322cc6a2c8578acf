"""The system calls of a command in the guest, as strace prints them.

    python examples/strace.py [COMMAND [ARCH]]

Nothing runs in the guest but the command: its calls are seen from outside. The word
before the first space is the program that is followed, with the processes it makes.
"""

from __future__ import annotations

import sys

from pandalite import Panda
from pandalite.syscalls.strace import Strace

COMMAND = sys.argv[1] if len(sys.argv) > 1 else "cat /etc/hostname"
ARCH = sys.argv[2] if len(sys.argv) > 2 else "x86_64"

panda = Panda(generic=ARCH)


@panda.queue_blocking
def work() -> None:
    panda.revert_sync("root")
    program = COMMAND.split()[0].rpartition("/")[2]
    with Strace(panda, program):
        output = panda.run_serial_cmd(COMMAND)
    print(f"--- {COMMAND} printed:\n{output}")
    panda.end_analysis()


panda.run()
