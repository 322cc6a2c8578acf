"""Compound reads, on machines without an operating system of every architecture."""

from __future__ import annotations

from typing import Any

import bare_programs as programs
import pytest
from bare_programs import DATA, STACK
from guest import run_case
from test_bare_machine import machine

from pandalite._bindings.arches import ARCHITECTURES

#: The stack pointer: its words share a page with the data, which the TLB knows. (ARM's
#: pages may have 1 KB.)
SP = DATA + 0x200
WORD = 0xA1B2C3D4E5F60718
#: Strings: short; up to where nothing is mapped; over the end of a page.
SHORT = DATA + 0x380
END = STACK - 4
ACROSS = DATA + 0xFFD


def prepare(panda: Any, width: int) -> None:
    """Fill the stack, and write the strings and a list of pointers."""
    order = panda.endianness
    mask = (1 << 8 * width) - 1
    words = [(WORD + n) & mask for n in range(40)]
    panda.physical_memory_write(SP, b"".join(w.to_bytes(width, order) for w in words))
    panda.physical_memory_write(SHORT, "grüße\0x".encode())
    panda.physical_memory_write(END, b"abcd")
    panda.physical_memory_write(ACROSS, b"page by page\0")
    pointers = [SHORT, ACROSS, 1, 0, 2]
    panda.physical_memory_write(SHORT + 0x40, b"".join(w.to_bytes(width, order) for w in pointers))


def attempt(call: Any) -> Any:
    """The result, or what it raised."""
    try:
        return call()
    except (ValueError, NotImplementedError) as error:
        return [type(error).__name__, str(error)]


def reads(panda: Any) -> dict[str, Any]:
    """Everything there is to read."""
    cpu = panda.get_cpu()
    arch = panda.arch
    conventions = getattr(arch, "arm32", arch) if not getattr(cpu.env_ptr, "aarch64", 1) else arch
    found: dict[str, Any] = {}
    for name, places in conventions.call_conventions.items():
        found[f"args {name}"] = [
            arch.get_args(cpu, len(places), name),
            [arch.get_arg(cpu, n, name) for n in range(len(places))],
        ]
    names = [*conventions.registers, "pc"]
    found["regs"] = [arch.get_regs(cpu, names), [arch.get_reg(cpu, n) for n in names]]
    found["numbers"] = [arch.get_regs(cpu, [1, 2, 3]), [arch.get_reg(cpu, n) for n in (1, 2, 3)]]
    plain = [
        arch.get_pc(cpu),
        panda.current_asid(cpu),
        panda.current_sp(cpu),
        panda.in_kernel(cpu),
    ]
    found["context"] = [panda.context(cpu), [*plain, [], None]]
    found["context args"] = [
        panda.context(cpu, args=3, convention="syscall"),
        [*plain, arch.get_args(cpu, 3, "syscall"), None],
    ]
    # Of a call, 0 is the system call's number.
    before = arch.get_arg(cpu, 1, "syscall")
    for name, address, text in (
        ("text", SHORT, "grüße"),
        ("text at an end", END, None),
        ("text across", ACROSS, "page by page"),
        ("no text", 0x900000, None),
    ):
        arch.set_arg(cpu, 1, address, "syscall")
        found[name] = [
            panda.context(cpu, args=2, convention="syscall", text=1),
            [*plain, arch.get_args(cpu, 2, "syscall"), text],
        ]
    arch.set_arg(cpu, 1, before, "syscall")
    found["str"] = [panda.read_str(cpu, SHORT), "grüße"]
    found["str max"] = [panda.read_str(cpu, ACROSS, 4), "page"]
    found["str none"] = [panda.read_str(cpu, SHORT, 0), ""]
    found["str exact"] = [panda.read_str(cpu, END, 4), "abcd"]
    found["str end"] = [attempt(lambda: panda.read_str(cpu, END))[0], "GuestMemoryError"]
    at = SHORT + 0x40
    found["pointers"] = [panda.read_pointers(cpu, at, 5), [SHORT, ACROSS, 1, 0, 2]]
    found["until null"] = [panda.read_pointers(cpu, at, 500, True), [SHORT, ACROSS, 1]]
    found["no pointers"] = [panda.read_pointers(cpu, at, 0), []]
    found["bad pointers"] = [
        attempt(lambda: panda.read_pointers(cpu, END, 9))[0],
        "GuestMemoryError",
    ]
    found["nowhere"] = [
        attempt(lambda: panda.read_pointers(cpu, 0x900000, 1))[0],
        "GuestMemoryError",
    ]
    found["negative"] = [attempt(lambda: panda.read_pointers(cpu, at, -1))[0], "ValueError"]
    found["no such text"] = [
        attempt(lambda: panda.context(cpu, args=1, text=1)),
        ["ValueError", "text=1: of 1 arguments there is none of that number"],
    ]
    found["no register"] = [attempt(lambda: arch.get_regs(cpu, ["NIX", 1]))[0], "ValueError"]
    found["no convention"] = [attempt(lambda: arch.get_args(cpu, 2, "x"))[0], "NotImplementedError"]
    return found


def case_compound(arch: str, program: str, extra: str) -> dict[str, Any]:
    """In a callback, where the TLB leads to it, and between runs."""
    panda = machine(program, extra, arch=arch)
    width = 4 if program in ("arm", "thumb") else panda.register_size
    cpu = panda.get_cpu()
    found: dict[str, Any] = {"quick": []}

    @panda.cb_after_machine_init(name="prepare")
    def fill(cpu: Any) -> None:
        prepare(panda, width)
        panda.arch.set_reg(cpu, panda.arch.reg_sp if arch == program else "SP", SP)

    @panda.cb_virt_mem_after_write(name="write")
    def write(cpu: Any, pc: int, addr: int, size: int, buf: Any) -> None:
        if "callback" not in found:
            places = panda.arch.argument_places(cpu, 4)
            found["quick"] = [
                panda._values(places) == panda.arch.get_args(cpu, 4),
                panda._peek_text(SHORT, 100) == "grüße".encode(),
                panda._pointers(SHORT + 0x40, 2, False) == [SHORT, ACROSS],
            ]
            found["callback"] = reads(panda)

    panda.run_until(count=6, timeout=30)
    found["between runs"] = reads(panda)
    # What cannot be read is named.
    panda.arch.set_reg(cpu, panda.arch.reg_sp if arch == program else "SP", 0x900000)
    found["bad stack"] = attempt(lambda: panda.arch.get_args(cpu, 6, "syscall"))
    found["bad default"] = attempt(lambda: panda.context(cpu, args=4))
    return found


CASES = [
    *((programs.arch_of(p), p, "") for p in programs.PROGRAMS),
    # 32-bit code on a 64-bit emulator.
    ("aarch64", "arm", "-cpu cortex-a15"),
]


@pytest.mark.parametrize(("arch", "program", "extra"), CASES)
def test_compound(arch: str, program: str, extra: str) -> None:
    found = run_case(case_compound, arch, program, extra)
    assert found["quick"] == [True, True, True]
    for where in ("callback", "between runs"):
        for name, (got, wanted) in found[where].items():
            assert got == wanted, (where, name)
    width = 4 if program in ("arm", "thumb") else ARCHITECTURES[arch].register_size
    words = [(WORD + n) & ((1 << 8 * width) - 1) for n in range(40)]
    args = found["callback"]["args default"][0]
    if arch == "i386":
        # Above the return address.
        assert args == words[1:21]
        assert found["bad default"][0] == "GuestMemoryError"
        assert "0x900004" in found["bad default"][1]
    if arch in ("mips", "mipsel"):
        # Above the room for those in registers.
        assert args[4:] == words[4:20]
        assert found["callback"]["args syscall"][0][5:] == words[4:8]
        assert found["bad stack"][0] == "GuestMemoryError"
