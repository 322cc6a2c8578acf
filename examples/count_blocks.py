#!/usr/bin/env python3
"""Boot a Linux guest in this process, run a command, count its basic blocks."""

from pandalite import Panda

panda = Panda(generic="x86_64")
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
