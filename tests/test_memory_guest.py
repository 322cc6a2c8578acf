"""Reading, writing and mapping guest memory, against a real kernel."""

from __future__ import annotations

import io

import pytest
from guest import boot, in_guest, run_case

ARCHES = ["x86_64", "i386"]

#: Start of the kernel's text, without address randomisation.
TEXT = {"x86_64": 0xFFFFFFFF81000000, "i386": 0xC1000000}
PHYS = 0x1000000


def failure(function):
    try:
        function()
    except Exception as error:
        return [c.__name__ for c in type(error).__mro__], str(error)
    return None


def case_memory(arch):
    panda = boot(arch)
    cpu = panda.cpu
    text = TEXT[arch]
    word = panda.bits // 8
    found = {}
    errors = {}

    def work():
        panda.vm_stop()
        panda.run_monitor_cmd("info status")
        read = panda.virtual_memory_read
        data = read(cpu, text, 64)
        found["type"] = type(data).__name__
        found["same"] = data == panda.physical_memory_read(PHYS, 64)
        found["phys"] = panda.virt_to_phys(cpu, text + 0x123) == PHYS + 0x123
        found["unmapped phys"] = panda.virt_to_phys(cpu, 0x10) == (1 << 64) - 1
        found["int"] = read(cpu, text, 4, fmt="int") == int.from_bytes(data[:4], "little")
        found["ptrlist"] = read(cpu, text, 4 * word, fmt="ptrlist") == [
            int.from_bytes(data[i * word : (i + 1) * word], "little") for i in range(4)
        ]
        found["lengths"] = [len(read(cpu, text, n)) for n in (0, 1, 2, 4095, 4096, 12345)]
        found["one"] = read(cpu, text, 1) == data[:1]
        found["pages"] = read(cpu, text, 20000) == panda.physical_memory_read(PHYS, 20000)
        # An address is wrapped to the guest's width; a negative one too.
        found["wrapped"] = read(cpu, text - (1 << panda.bits), 8) == data[:8]

        ram = io.BytesIO()
        panda.memsavep(ram)
        image = ram.getvalue()
        found["ram"] = len(image)
        found["in ram"] = image[PHYS : PHYS + 64] == data
        banner = image.index(b"Linux version ")
        end = image.index(b"\0", banner)
        found["str"] = panda.physical_memory_read(banner, 500, fmt="str") == image[banner:end]
        # The direct mapping of low memory.
        base = 0xFFFF888000000000 if arch == "x86_64" else 0xC0000000
        found["read_str"] = panda.read_str(cpu, base + banner) == image[banner:end].decode()
        found["max"] = panda.read_str(cpu, base + banner, max_length=13)
        found["offset"] = panda.address_to_ram_offset(PHYS, False) == PHYS

        panda.virtual_memory_write(cpu, base + 0x500, b"written across the border")
        found["written"] = panda.physical_memory_read(0x500, 7).decode()
        panda.physical_memory_write(0x500, b"WRITTEN")
        found["written again"] = read(cpu, base + 0x500, 7).decode()

        panda.map_memory("more", 5000, 0xA0000000)
        panda.physical_memory_write(0xA0000000 + 8188, b"end!")
        found["mapped"] = panda.physical_memory_read(0xA0000000 + 8188, 4).decode()

        for name, function in {
            "unmapped": lambda: read(cpu, 0x10, 4),
            "page end": lambda: read(cpu, (1 << panda.bits) - 4, 64),
            "device": lambda: panda.physical_memory_read(0xFEE00000, 4),
            "hole": lambda: panda.physical_memory_read(0xB0000000, 4),
            "rom offset": lambda: panda.address_to_ram_offset(0xFEE00000, False),
            "negative": lambda: read(cpu, text, -1),
            "address": lambda: read(cpu, "text", 4),
            "length": lambda: read(cpu, text, "4"),
            "huge": lambda: read(cpu, text, 1 << 60),
            "fmt": lambda: read(cpu, text, 4, fmt="nosuch"),
            "list": lambda: read(cpu, text, word + 1, fmt="ptrlist"),
            "write": lambda: panda.virtual_memory_write(cpu, 0x10, b"x"),
            "write str": lambda: panda.physical_memory_write(0x500, "text"),
            "overlap": lambda: panda.map_memory("over", 4096, 0x1000),
            "empty": lambda: panda.map_memory("none", 0, 0xC0000000),
            "string": lambda: panda.read_str(cpu, 0x10),
        }.items():
            errors[name] = failure(function)
        panda.cont()
        # The guest is well.
        found["alive"] = panda.run_serial_cmd("echo $((6 * 7))")

    in_guest(panda, work)
    found["unsigned"] = panda.to_unsigned_guest(-1) == (1 << panda.bits) - 1
    found["signed"] = panda.from_unsigned_guest((1 << panda.bits) - 2) == -2
    found["bits"] = panda.from_unsigned_guest(0x80, 8)
    return {"found": found, "errors": errors}


@pytest.mark.parametrize("arch", ARCHES)
def test_memory(arch):
    result = run_case(case_memory, arch)
    found, errors = result["found"], result["errors"]
    assert found.pop("type") == "bytes"
    assert found.pop("lengths") == [0, 1, 2, 4095, 4096, 12345]
    assert found.pop("ram") == 128 << 20
    assert found.pop("max") == "Linux version"
    assert found.pop("written") == "written"
    assert found.pop("written again") == "WRITTEN"
    assert found.pop("mapped") == "end!"
    assert found.pop("alive") == "42"
    assert found.pop("bits") == -128
    assert [name for name, good in found.items() if good is not True] == []
    for name, error in errors.items():
        assert error is not None, f"{name} raised nothing"
        assert "ValueError" in error[0], f"{name}: {error}"
    for name in ("unmapped", "device", "hole", "write", "overlap", "string"):
        assert "GuestMemoryError" in errors[name][0], errors[name]
    assert "0x10" in errors["unmapped"][1] and "err=" in errors["unmapped"][1]


def case_in_callbacks():
    """The quick way of reading in a callback gives what the long one gives."""
    panda = boot()
    counts = {"quick": 0, "different": 0, "refused": 0, "allowed": 0}

    @panda.cb_before_block_exec(enabled=False)
    def compare(cpu, tb):
        sp = panda.current_sp(cpu)
        for addr, length in ((tb.pc, 16), (sp, 8), (sp & ~0xFFF, 4096), ((sp | 0xFFF) - 7, 16)):
            quick = panda._peek(addr, length)
            if quick is None:
                continue
            counts["quick"] += 1
            phys = panda.virt_to_phys(cpu, addr)
            first = min(length, 4096 - addr % 4096)
            slow = panda.physical_memory_read(phys, first)
            if quick[:first] != slow:
                counts["different"] += 1

    @panda.cb_insn_translate(enabled=False)
    def translate(cpu, pc):
        try:
            panda.physical_memory_write(0x500, b"x")
            counts["allowed"] += 1
        except RuntimeError:
            counts["refused"] += 1
        panda.disable_callback("translate")
        return False

    def work():
        panda.enable_callback("compare")
        panda.run_serial_cmd("echo", timeout=120)
        panda.disable_callback("compare")
        panda.enable_callback("translate")
        panda.run_serial_cmd("ls / > /dev/null", timeout=120)

    in_guest(panda, work)
    return counts


def test_in_callbacks():
    counts = run_case(case_in_callbacks)
    assert counts["quick"] > 5000
    assert counts["different"] == 0
    assert counts["allowed"] == 0
    assert counts["refused"] >= 1


def case_guest_sees_it():
    """What is written is what the guest prints."""
    panda = boot()

    def work():
        panda.run_serial_cmd("marker=needle-in-the-hay")
        panda.vm_stop()
        panda.run_monitor_cmd("info status")
        ram = io.BytesIO()
        panda.memsavep(ram)
        image = ram.getvalue()
        at = image.find(b"needle-in-the-hay")
        while at >= 0:
            panda.physical_memory_write(at, b"Thread")
            at = image.find(b"needle-in-the-hay", at + 1)
        panda.cont()
        return panda.run_serial_cmd("echo $marker")

    return in_guest(panda, work)


def test_guest_sees_it():
    assert run_case(case_guest_sees_it) == "Thread-in-the-hay"
