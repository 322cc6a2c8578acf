#!/usr/bin/env python3
"""Find where a text is in the guest's memory, then report who overwrites it.

python examples/watch_memory.py [x86_64|i386]
"""

import io
import re
import sys

from pandalite import Panda

TEXT = b"watch this text!"

arch = sys.argv[1] if len(sys.argv) > 1 else "x86_64"
panda = Panda(generic=arch)
watched = range(0)  # physical addresses


@panda.cb_phys_mem_before_write(enabled=False)
def report(cpu, pc, addr, size, buf):
    """Called before every write; addr is physical, buf holds the new value."""
    if addr in watched or addr + size - 1 in watched:
        who = "kernel" if panda.in_kernel(cpu) else "program"
        old, new = panda.physical_memory_read(addr, size), bytes(buf[:size])
        print(f"{who} at {pc:#x} writes {new} over {old} at {addr:#x}")


@panda.queue_blocking
def work():
    """Runs beside the guest: types commands, reads their output."""
    global watched
    panda.revert_sync("root")
    panda.run_serial_cmd(f"echo '{TEXT.decode()}' > /tmp/file")
    ram = io.BytesIO()
    panda.memsavep(ram)
    places = [found.start() for found in re.finditer(TEXT, ram.getvalue())]
    print("the text is at", ", ".join(f"{place:#x}" for place in places))
    # The shell and the terminal keep copies of the command line; the file itself,
    # which this guest keeps in RAM, begins a page.
    start = next(place for place in places if place % 4096 == 0)
    watched = range(start, start + len(TEXT))
    panda.enable_callback("report")
    panda.run_serial_cmd("printf CHANGED. | dd of=/tmp/file bs=8 conv=notrunc 2>/dev/null")
    panda.disable_callback("report")
    print("the file now:", panda.run_serial_cmd("cat /tmp/file"))
    panda.end_analysis()


panda.run()
