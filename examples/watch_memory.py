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
places = []  # physical addresses of copies of TEXT


@panda.cb_phys_mem_before_write(enabled=False)
def report(cpu, pc, addr, size, buf):
    """Called before every write; addr is physical, buf holds the new value."""
    for place in places:
        if place - size < addr < place + len(TEXT):
            who = "kernel" if panda.in_kernel(cpu) else "program"
            old, new = panda.physical_memory_read(addr, size), bytes(buf[:size])
            print(f"{who} at {pc:#x} writes {new} over {old} at {addr:#x}")


@panda.queue_blocking
def work():
    panda.revert_sync("root")
    # The guest keeps its files in RAM, so the file's page holds the text.
    panda.run_serial_cmd(f"echo '{TEXT.decode()}' > /tmp/file; clear")
    memory = io.BytesIO()
    panda.memsavep(memory)  # all of the guest's RAM
    places.extend(match.start() for match in re.finditer(TEXT, memory.getvalue()))
    print("found at", ", ".join(f"{place:#x}" for place in places))
    panda.enable_callback("report")
    panda.run_serial_cmd("printf CHANGED. | dd of=/tmp/file bs=8 conv=notrunc 2>/dev/null")
    panda.disable_callback("report")
    print("the file now:", panda.run_serial_cmd("cat /tmp/file"))
    panda.end_analysis()


panda.run()
