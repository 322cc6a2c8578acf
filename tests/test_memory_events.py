"""Memory events, one by one: hand-assembled code on a machine without an OS."""

from __future__ import annotations

import pytest
from guest import run_case

ARCHES = ["x86_64", "i386"]

#: Machine code (flat 32-bit mode) and the accesses it makes, in order:
#: (instruction's offset, "r" or "w", address, size, value).
PROGRAM = [
    # mov dword [0x8000], 0x11223344
    (b"\xc7\x05\x00\x80\x00\x00\x44\x33\x22\x11", [("w", 0x8000, 4, 0x11223344)]),
    # mov al, [0x8001]
    (b"\xa0\x01\x80\x00\x00", [("r", 0x8001, 1, 0x33)]),
    # mov ax, [0x8001]: unaligned
    (b"\x66\xa1\x01\x80\x00\x00", [("r", 0x8001, 2, 0x2233)]),
    # lock add dword [0x8000], 1: a read and a write
    (
        b"\xf0\x83\x05\x00\x80\x00\x00\x01",
        [("r", 0x8000, 4, 0x11223344), ("w", 0x8000, 4, 0x11223345)],
    ),
    # mov dword [0x8ffe], 0xaabbccdd: crosses a page, one event
    (b"\xc7\x05\xfe\x8f\x00\x00\xdd\xcc\xbb\xaa", [("w", 0x8FFE, 4, 0xAABBCCDD)]),
    # mov eax, [0x8ffe]
    (b"\xa1\xfe\x8f\x00\x00", [("r", 0x8FFE, 4, 0xAABBCCDD)]),
    # mov esp, 0xa000
    (b"\xbc\x00\xa0\x00\x00", []),
    # push eax; pop ebx
    (b"\x50", [("w", 0x9FFC, 4, 0xAABBCCDD)]),
    (b"\x5b", [("r", 0x9FFC, 4, 0xAABBCCDD)]),
    # mov esi, 0x8000; mov edi, 0x8100; mov ecx, 2; cld
    (b"\xbe\x00\x80\x00\x00\xbf\x00\x81\x00\x00\xb9\x02\x00\x00\x00\xfc", []),
    # rep movsd: two reads and two writes
    (
        b"\xf3\xa5",
        [
            ("r", 0x8000, 4, 0x11223345),
            ("w", 0x8100, 4, 0x11223345),
            ("r", 0x8004, 4, 0),
            ("w", 0x8104, 4, 0),
        ],
    ),
    # mov eax, cr4; or ax, 0x600; mov cr4, eax: SSE on
    (b"\x0f\x20\xe0\x66\x0d\x00\x06\x0f\x22\xe0", []),
    # movups xmm0, [0x8000]: 16 bytes are two events of 8
    (b"\x0f\x10\x05\x00\x80\x00\x00", [("r", 0x8000, 8, 0x11223345), ("r", 0x8008, 8, 0)]),
    # movlps [0x8200], xmm0
    (b"\x0f\x13\x05\x00\x82\x00\x00", [("w", 0x8200, 8, 0x11223345)]),
    # xchg [0x8200], ebx: implicitly locked
    (
        b"\x87\x1d\x00\x82\x00\x00",
        [("r", 0x8200, 4, 0x11223345), ("w", 0x8200, 4, 0xAABBCCDD)],
    ),
]


#: Filters that let all that is looked at pass, after generated code has asked.
FILTERS = [{}, {"addr": (0x8000, 0xA000)}]


def case_accesses(arch, filtered):
    from registers_child import CODE, bare_machine, run_to

    code = b"".join(part for part, _ in PROGRAM)
    panda = bare_machine(arch, code)
    events = []
    end = CODE + len(code)

    def note(kind, cpu, pc, addr, size, buf):
        if CODE <= pc < end:
            value = None if buf is None else int.from_bytes(bytes(buf[0:size]), "little")
            events.append([kind, pc - CODE, addr, size, value])

    for space in ("virt", "phys"):
        for what in ("read", "write"):
            for when in ("before", "after"):
                kind = f"{space}_mem_{when}_{what}"
                if kind.endswith("before_read"):

                    def function(cpu, pc, addr, size, kind=kind):
                        note(kind, cpu, pc, addr, size, None)
                else:

                    def function(cpu, pc, addr, size, buf, kind=kind):
                        note(kind, cpu, pc, addr, size, buf)

                # inspect.signature would count the default argument, too.
                getattr(panda, f"cb_{kind}")(function, name=kind, **FILTERS[filtered])

    run_to(panda, end)
    return events


@pytest.mark.parametrize("filtered", [0, 1])
@pytest.mark.parametrize("arch", ARCHES)
def test_accesses(arch, filtered):
    events = run_case(case_accesses, arch, filtered)
    expected = []
    offset = 0
    for part, accesses in PROGRAM:
        for what, addr, size, value in accesses:
            word = "read" if what == "r" else "write"
            for space in ("virt", "phys"):
                seen = None if what == "r" else value
                expected.append([f"{space}_mem_before_{word}", offset, addr, size, seen])
            for space in ("virt", "phys"):
                expected.append([f"{space}_mem_after_{word}", offset, addr, size, value])
        offset += len(part)

    # Both halves of a 16-byte access come before it and both after it.
    def key(event):
        return [event[1], event[0], event[2]]

    assert sorted(events, key=key) == sorted(expected, key=key)
    wide = {offset_of(12)}
    assert [e for e in events if e[1] not in wide] == [e for e in expected if e[1] not in wide]


def offset_of(index):
    return sum(len(part) for part, _ in PROGRAM[:index])


def case_changed_store(arch, filtered):
    from registers_child import CODE, bare_machine, run_to

    # mov dword [0x8000], 0x11223344; mov eax, [0x8000]
    code = b"\xc7\x05\x00\x80\x00\x00\x44\x33\x22\x11\xa1\x00\x80\x00\x00"
    panda = bare_machine(arch, code)
    result = {}

    @panda.cb_virt_mem_before_write(**FILTERS[filtered])
    def change(cpu, pc, addr, size, buf):
        if addr == 0x8000:
            buf[0] = 0x99

    @panda.cb_virt_mem_after_write(**FILTERS[filtered])
    def written(cpu, pc, addr, size, buf):
        if addr == 0x8000:
            result["event"] = bytes(buf[0:size]).hex()

    def at_end(cpu):
        result["memory"] = panda.physical_memory_read(0x8000, 4).hex()
        result["eax"] = panda.arch.get_reg(cpu, "EAX")

    run_to(panda, CODE + len(code), at_end)
    return result


@pytest.mark.parametrize("filtered", [0, 1])
@pytest.mark.parametrize("arch", ARCHES)
def test_changed_store(arch, filtered):
    """What a before-write callback puts into the buffer is what is stored."""
    assert run_case(case_changed_store, arch, filtered) == {
        "event": "99332211",
        "memory": "99332211",
        "eax": 0x11223399,
    }
