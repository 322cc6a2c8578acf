#!/usr/bin/env python3
"""Boot a Linux guest in this process, run a command, count its basic blocks.

python examples/count_blocks.py [x86_64|i386]
"""

import sys

from pandalite import Panda

arch = sys.argv[1] if len(sys.argv) > 1 else "x86_64"
panda = Panda(generic=arch)
blocks = 0


@panda.cb_before_block_exec(enabled=False)
def count(cpu, tb):
    """Called before every block the guest executes."""
    global blocks
    blocks += 1


@panda.queue_blocking
def work():
    """Runs beside the guest: types commands, reads their output."""
    panda.revert_sync("root")
    panda.enable_callback("count")
    print(panda.run_serial_cmd("uname -a"))
    panda.disable_callback("count")
    panda.end_analysis()


panda.run()
print(f"{blocks:,} basic blocks")
