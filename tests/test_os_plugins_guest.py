"""The plugins that face the events of the guest's system."""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path
from typing import Any

import pytest
from guest import boot, in_guest, run_case
from test_os_events_guest import ARCHES, TRAP


def case_loaded(arch: str) -> dict[str, Any]:
    panda = boot(arch)
    seen: list[Any] = []

    def work() -> dict[str, Any]:
        panda.run_serial_cmd("true")

        @panda.ppp("loaded", "on_library_load")
        def on_library_load(cpu: Any, pc: int, filename: bytes, base: int, size: int) -> None:
            name = panda.get_process_name(cpu)
            seen.append([name, panda.in_kernel(cpu), filename.decode(), base, size])

        panda.run_serial_cmd("sleep 1000 & sleep 1")
        panda.disable_ppp("on_library_load")
        count = len(seen)
        maps = panda.run_serial_cmd("cat /proc/$!/maps; kill $!")
        return {"maps": maps, "seen": seen, "after": len(seen) - count}

    return in_guest(panda, work)


@pytest.mark.parametrize("arch", ARCHES)
def test_loaded(arch: str) -> None:
    out = run_case(case_loaded, arch)
    seen = [row for row in out["seen"] if row[0] == "sleep"]
    code = re.findall(r"^(\w+)-(\w+) r-xp \S+ \S+ \d+ +(/\S+)", out["maps"], re.MULTILINE)
    assert len(code) >= 3
    for start, end, path in code:
        base = int(start, 16)
        assert ["sleep", True, path, base, int(end, 16) - base] in seen
    assert out["after"] == 0


def case_signal(arch: str) -> list[str]:
    panda = boot(arch)

    def work() -> list[str]:
        said = []
        panda.run_serial_cmd(TRAP, timeout=60)
        plugin = panda.plugins["signal"]
        for number, name in ((10, b"sh"), (15, b"bash")):
            assert plugin.block_sig_by_proc(number, name) == 0
        said.append(panda.run_serial_cmd("kill -USR1 $!; sleep 0.5"))
        assert plugin.block_sig(9) == 0
        said.append(panda.run_serial_cmd("kill -9 $!; sleep 0.5; kill -0 $!; echo $?"))
        said.append(str(plugin.block_sig(65)))
        panda.unload_plugin("signal")
        said.append(panda.run_serial_cmd("kill -USR1 $!; sleep 0.5"))
        panda.plugins["signal"].block_sig_by_proc(15, b"bash")
        said.append(panda.run_serial_cmd("kill -TERM $!; wait $!; echo $?"))
        return said

    return in_guest(panda, work)


@pytest.mark.parametrize("arch", ARCHES)
def test_signal(arch: str) -> None:
    blocked, killed, wrong, unblocked, others = run_case(case_signal, arch)
    assert "got" not in blocked
    assert killed.split()[-1] == "0"
    assert int(wrong) < 0
    assert "got usr1" in unblocked
    assert "got term" in others and re.search("^3$", others, re.MULTILINE), others


def case_hooks2(arch: str) -> dict[str, Any]:
    panda = boot(arch)
    out: dict[str, Any] = {"starts": [], "ends": [], "threads": [], "maps": []}

    @panda.ppp("hooks2", "on_process_start")
    def start(cpu: Any, procname: bytes, asid: int, pid: int) -> None:
        out["starts"].append([procname.decode(), pid])

    @panda.ppp("hooks2", "on_process_end")
    def end(cpu: Any, procname: bytes, asid: int, pid: int) -> None:
        out["ends"].append([procname.decode(), pid, asid == panda.current_asid(cpu)])

    @panda.ppp("hooks2", "on_mmap_updated")
    def mmap(cpu: Any, libname: bytes, base: int, size: int) -> None:
        out["maps"].append(libname.decode())

    def work() -> dict[str, Any]:
        plugin = panda.plugins["hooks2"]
        blocks: list[Any] = []

        def block(cpu: Any, tb: Any, data: Any) -> bool:
            mapping = panda.get_mapping_by_addr(panda.cpu, panda.current_pc(panda.cpu))
            blocks.append([panda.get_process_name(panda.cpu), mapping and mapping.name])
            return False

        functype = plugin.add_hooks2.argtypes[0]
        kept = functype(block)
        number = plugin.add_hooks2(kept, None, False, b"cat", b"libc.so", 0, 0, 0, 0)
        assert number == 1
        panda.run_serial_cmd("cat /etc/hostname; ls / > /dev/null", timeout=60)
        out["blocks"] = len(blocks)
        out["where"] = sorted({(name, lib) for name, lib in blocks})
        plugin.disable_hooks2(number)
        panda.run_serial_cmd("cat /etc/hostname", timeout=60)
        out["disabled"] = len(blocks) - out["blocks"]
        plugin.enable_hooks2(number)
        panda.run_serial_cmd("cat /etc/hostname", timeout=60)
        out["again"] = len(blocks) - out["blocks"]
        out["wrong"] = plugin.enable_hooks2(99)
        return out

    return in_guest(panda, work)


@pytest.mark.parametrize("arch", ARCHES)
def test_hooks2(arch: str) -> None:
    out = run_case(case_hooks2, arch)
    started = [pid for name, pid in out["starts"] if name == "cat"]
    assert len(started) == 3
    # The shell's child has its name until it has a program of its own.
    assert all(["bash", pid] in out["starts"] for pid in started)
    assert all(["cat", pid, True] in out["ends"] for pid in started)
    assert any(name.endswith("libc.so.6") for name in out["maps"])
    assert out["where"] == [["cat", "libc.so.6"]]
    assert out["blocks"] > 100 and out["disabled"] == 0 and out["again"] > 100
    assert out["wrong"] < 0


def case_asidstory(arch: str, folder: str) -> dict[str, Any]:
    panda = boot(arch)
    os.chdir(folder)
    path = f"{folder}/r"

    @panda.queue_blocking
    def work() -> None:
        panda.revert_sync("root")
        panda.record(path)
        panda.run_serial_cmd("cat /etc/hostname; md5sum /bin/bash; ls /", timeout=60)
        panda.end_record()
        panda.end_analysis()

    panda.run()
    names: list[str] = []
    panda.load_plugin("asidstory", {"width": 120})

    @panda.ppp("asidstory", "on_proc_change")
    def on_proc_change(cpu: Any, asid: int, proc: Any) -> None:
        name = ctypes.string_at(proc.name).decode()
        assert name == panda.get_process_name(cpu)
        names.append(name)

    panda.run_replay(path)
    facts = panda.record_report()
    story = Path("asidstory").read_text()
    panda.load_plugin("asidstory", {"summary": True})
    panda.run_replay(path)
    return {
        "names": names,
        "story": story,
        "instructions": facts.instructions,
        "summary": Path("asidstory").read_text(),
    }


@pytest.mark.parametrize("arch", ARCHES)
def test_asidstory(arch: str, tmp_path: Path) -> None:
    out = run_case(case_asidstory, arch, str(tmp_path), timeout=300)
    table, chart = out["story"].split("\n\n")
    rows = [line.split() for line in table.splitlines()[1:]]
    known = {row[2]: row for row in rows}
    assert {"bash", "cat", "md5sum", "ls"} <= set(known) and {*known} == {*out["names"]}
    assert sum(int(row[0]) for row in rows) == len(out["names"])
    assert all(0 < int(r[4]) <= int(r[5]) <= out["instructions"] for r in rows)
    assert int(known["cat"][5]) < int(known["md5sum"][4]) < int(known["ls"][4])
    lines = {m[1]: m[2] for m in re.finditer(r"^ *(\S+) +\d+ : \[(.*)\]$", chart, re.MULTILINE)}
    assert all(len(line) == 120 for line in lines.values()) and set(lines) == set(known)
    assert lines["cat"].index("#") <= lines["md5sum"].index("#") <= lines["ls"].index("#")
    # What takes longest comes first, and has most of the chart.
    assert lines[rows[0][2]].count("#") == max(line.count("#") for line in lines.values())
    assert out["summary"].splitlines()[0] == table.splitlines()[0]
    assert "[" not in out["summary"] and len(out["summary"].splitlines()) == len(rows) + 1
