#!/usr/bin/env python3
"""Switch callbacks on and off while the guest runs; show what each phase costs.

    python examples/toggle_callbacks.py [x86_64|i386]

Translations with and without call-outs live side by side, so a callback that
is off adds nothing to the code that runs, and nothing is translated anew when
it is switched on again.
"""

import sys
import time
from collections import Counter

from pandalite import Panda

COMMAND = "i=0; while [ $i -lt 300 ]; do i=$((i + 1)); done; echo $i"

arch = sys.argv[1] if len(sys.argv) > 1 else "x86_64"
panda = Panda(generic=arch)
events = Counter()


@panda.cb_before_block_exec(enabled=False)
def blocks(cpu, tb):
    """Called before every block."""
    events["blocks"] += 1


@panda.cb_virt_mem_after_write(enabled=False)
def writes(cpu, pc, addr, size, buf):
    """Called after every write to memory."""
    events["writes"] += 1


@panda.queue_blocking
def work():
    """Runs beside the guest: types commands, reads their output."""
    panda.revert_sync("root")
    panda.run_serial_cmd(COMMAND)  # so that the guest's code is translated
    print(f"{'callbacks on':20} {'blocks':>12} {'writes':>12} {'seconds':>9}")
    for names in [], ["blocks"], [], ["writes"], ["blocks", "writes"], []:
        events.clear()
        for name in names:
            panda.enable_callback(name)
        start = time.perf_counter()
        panda.run_serial_cmd(COMMAND)
        seconds = time.perf_counter() - start
        for name in names:
            panda.disable_callback(name)
        label = ", ".join(names) or "none"
        print(f"{label:20} {events['blocks']:12,} {events['writes']:12,} {seconds:9.2f}")
    panda.end_analysis()


panda.run()
