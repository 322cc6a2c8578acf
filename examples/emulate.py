#!/usr/bin/env python3
"""Run a few bytes of machine code without a guest system, and serve its system calls.

python examples/emulate.py [x86_64|arm]
"""

import sys

from pandalite import GuestFault, Panda

CODE, STACK = 0x10000, 0x30000

#: Writes a text that it decodes first, then exits: the code, the text xor 0x55, the
#: register with the number of a system call, its arguments' registers, write and exit.
PROGRAMS = {
    "x86_64": (
        # lea rsi, [rip + text]; mov edx, 6; lea rcx, [rdx - 1]
        "488d3522000000"
        "ba06000000"
        "488d4aff"
        # again: xor byte [rsi + rcx], 0x55; dec rcx; jns again
        "80340e55"
        "48ffc9"
        "79f7"
        # mov edi, 1; mov eax, edi; syscall; mov eax, 60; syscall
        "bf01000000"
        "89f8"
        "0f05"
        "b83c000000"
        "0f05",
        "RAX",
        ("RDI", "RSI", "RDX"),
        1,
        60,
    ),
    "arm": (
        # add r1, pc, #44 (text); mov r2, #6; sub r3, r2, #1
        "2c108fe2"
        "0620a0e3"
        "013042e2"
        # again: ldrb r4, [r1, r3]; eor r4, r4, #0x55; strb r4, [r1, r3]
        "0340d1e7"
        "554024e2"
        "0340c1e7"
        # subs r3, r3, #1; bpl again
        "013053e2"
        "faffff5a"
        # mov r0, #1; mov r7, #4; svc 0; mov r7, #1; svc 0
        "0100a0e3"
        "0470a0e3"
        "000000ef"
        "0170a0e3"
        "000000ef",
        "R7",
        ("R0", "R1", "R2"),
        4,
        1,
    ),
}
TEXT = bytes(byte ^ 0x55 for byte in b"hello\n")

arch = sys.argv[1] if len(sys.argv) > 1 else "x86_64"
code, number, arguments, write, leave = PROGRAMS[arch]
program = bytes.fromhex(code)
panda = Panda(arch, extra_args="-M configurable -nographic")
blocks = 0


@panda.cb_after_machine_init
def setup(cpu):
    """The machine is there: give it memory, a program and a stack."""
    panda.map_memory("code", 0x1000, CODE)
    panda.map_memory("stack", 0x1000, STACK)
    panda.physical_memory_write(CODE, program + TEXT)
    panda.arch.set_reg(cpu, panda.arch.reg_sp, STACK + 0x1000)
    panda.arch.set_pc(cpu, CODE)


@panda.cb_before_block_exec
def block(cpu, tb):
    """Callbacks work as on any machine."""
    global blocks
    blocks += 1


cpu = panda.get_cpu()
while True:
    try:
        panda.run_until(address=CODE + len(program), timeout=10)
    except GuestFault as fault:
        # There is no kernel: a system call ends the run, and this script serves it.
        size = 4 if arch == "arm" else 2
        if panda.arch.get_reg(cpu, number) == write:
            _, address, length = (panda.arch.get_reg(cpu, name) for name in arguments)
            text = panda.virtual_memory_read(cpu, address, length)
            print(f"write at {fault.pc:#x}: {text.decode()!r}")
            panda.arch.set_pc(cpu, fault.pc + size)
        elif panda.arch.get_reg(cpu, number) == leave:
            print(f"exit at {fault.pc:#x} after {blocks} blocks")
            break
        else:
            raise
