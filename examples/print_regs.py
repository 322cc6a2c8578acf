#!/usr/bin/env python3
"""Print the registers at the first blocks of user code that a command runs.

    python examples/print_regs.py [x86_64|i386]

The shell reads the command and starts it, so the first blocks are the shell's.
"""

import sys

from pandalite import Panda

BLOCKS = 3

arch = sys.argv[1] if len(sys.argv) > 1 else "x86_64"
panda = Panda(generic=arch)
shown = 0


@panda.cb_before_block_exec(enabled=False)
def show(cpu, tb):
    """Called before every block; the kernel's are passed over."""
    global shown
    if panda.in_kernel(cpu) or shown == BLOCKS:
        return
    shown += 1
    print(f"--- block {shown}: {tb.icount} instructions, asid {panda.current_asid(cpu):#x}")
    # The program counter, all general registers, and what they point to.
    panda.arch.dump_regs(cpu)
    if shown == BLOCKS:
        # Seen enough: from the next block on the guest runs at full speed.
        panda.disable_callback("show")


@panda.queue_blocking
def work():
    """Runs beside the guest: types commands, reads their output."""
    panda.revert_sync("root")
    panda.enable_callback("show")
    print(panda.run_serial_cmd("cat /proc/version"))
    panda.end_analysis()


panda.run()
