"""Events of guests that lie: the kernel's structures are changed when it comes to an event.

In front of the core's hook of each function that shows an event there is one that changes
memory and registers, and behind it one that puts all back: so the guest lives on, and every
event is another case. All that listens to events is loaded. TESTS_HOSTILE=50 for 50 times as many.
"""

from __future__ import annotations

import os
import random
import re
import time
from pathlib import Path
from typing import Any

import pytest
from guest import boot, in_guest, run_case
from hostile import TIMES, Tally

from pandalite.errors import GuestPanic, IntrospectionError
from pandalite.os_events import KINDS

#: The functions that show events; each kernel has some of them.
FUNCTIONS = (
    "finish_task_switch",
    "finish_task_switch.isra.0",
    "finalize_exec",
    "wake_up_new_task",
    "do_exit",
    "perf_event_mmap",
    "fd_install",
    "do_dup2",
    "filp_close",
    "filp_flush",
    "close_fd",
    "file_close_fd",
    "__send_signal",
    "__send_signal_locked",
    "send_signal_locked",
    "signal_setup_done",
)

#: Where the kernel has its arguments.
REGISTERS = {
    "x86_64": ("RDI", "RSI", "RDX", "RCX"),
    "i386": ("EAX", "EDX", "ECX"),
    "arm": ("R0", "R1", "R2"),
}

#: What leads from one structure to the next.
POINTERS = {
    "task_struct": ("mm", "files", "fs", "signal", "cred", "real_parent"),
    "mm_struct": ("mmap", "exe_file", "mm_mt.ma_root"),
    "files_struct": ("fdt",),
    "fdtable": ("fd",),
    "vm_area_struct": ("vm_file", "vm_mm", "vm_next"),
    "file": ("f_path.dentry", "f_path.mnt", "f_inode"),
    "dentry": ("d_parent", "d_name.name", "d_sb"),
}
LEADS_TO = {
    "mm": "mm_struct",
    "files": "files_struct",
    "fdt": "fdtable",
    "real_parent": "task_struct",
    "mmap": "vm_area_struct",
    "vm_next": "vm_area_struct",
    "vm_mm": "mm_struct",
    "vm_file": "file",
    "exe_file": "file",
    "f_path.dentry": "dentry",
    "d_parent": "dentry",
}
COMMANDS = (
    "cat /etc/hostname | head -1; ls / > /dev/null",
    "sh -c 'trap : USR1; kill -USR1 $$; kill -9 $$'; sleep 0.01 & wait",
    "(cat < /etc/passwd 2>&1) > /tmp/out; rm /tmp/out; sh -c 'exec true'",
)


class Liar:
    """Changes what the kernel has, and puts it back."""

    def __init__(self, panda: Any, rng: random.Random) -> None:
        self.panda, self.rng = panda, rng
        #: How many cases there are to be.
        self.wanted = 0
        self.word = panda.bits // 8
        self.order = panda.endianness
        self.offsets: dict[str, dict[str, int]] = {}
        for structure, name, offset in re.findall(
            r"^(\w+)\.(\S+): (\d+) \(", panda.os.report(), re.MULTILINE
        ):
            self.offsets.setdefault(structure, {})[name] = int(offset)
        self.armed = self.dirty = False
        self.puts_back = True
        self.cases = 0
        self.by_function: dict[str, int] = {}
        self._memory: list[tuple[int, bytes]] = []
        self._registers: list[tuple[str, int]] = []
        self._percpu: int | None = None
        for symbol in ("pcpu_hot", "current_task"):
            try:
                self._percpu = self._percpu or panda.os.symbol(symbol).address
            except IntrospectionError:
                continue

    def watch(self, name: str) -> tuple[Any, Any]:
        """What is to be called in front of a function's event, and behind it."""

        def before(cpu: Any, _tb: Any, _hook: Any) -> None:
            if self.armed and self.cases < self.wanted and self.rng.random() < 0.5:
                self._change(cpu, name)

        def behind(cpu: Any, _tb: Any, _hook: Any) -> None:
            if self.puts_back:
                self._put_back(cpu)

        return before, behind

    def _read(self, cpu: Any, at: int, size: int) -> bytes:
        return bytes(self.panda.virtual_memory_read(cpu, at, size))

    def _structures(self, cpu: Any) -> list[tuple[str, int]]:
        """Structures that the event is about, as (name, address)."""
        found: list[tuple[str, int]] = []
        current = self.panda.os.current
        if current is not None:
            found.append(("task_struct", current.task))
        for register in REGISTERS[self.panda.arch_name]:
            value = self.panda.arch.get_reg(cpu, register)
            # Of which kind the argument is does not matter.
            found.append((self.rng.choice(list(POINTERS)), value))
            found.append(("file" if register in ("RSI", "EDX", "R1") else "task_struct", value))
        for structure, address in list(found):
            for _ in range(5):
                known = [p for p in POINTERS.get(structure, ()) if p in self.offsets[structure]]
                if not known:
                    break
                field = self.rng.choice(known)
                at = address + self.offsets[structure][field]
                try:
                    address = int.from_bytes(self._read(cpu, at, self.word), self.order)
                except ValueError:
                    break
                if field not in LEADS_TO or LEADS_TO[field] not in self.offsets:
                    break
                structure = LEADS_TO[field]
                found.append((structure, address))
        return found

    def _value(self, near: int, size: int) -> bytes:
        rng = self.rng
        top = (1 << 8 * size) - 1
        number = rng.choice(
            [
                rng.randrange(top),
                near & top,
                (near + self.word * rng.randrange(-64, 400)) & top,
                (near + rng.randrange(8)) & top,
                0,
                top,
                top - 0xFFF,
                1 << (8 * size - 1),
                (1 << (8 * size - 1)) - 1,
                rng.randrange(1 << 16),
                0x1000,
            ]
        )
        if rng.random() < 0.1:
            return b"\x1b[31m\n%n"[:size].ljust(size, b"\xff")
        return number.to_bytes(size, self.order)

    def _change(self, cpu: Any, name: str) -> None:
        structures = self._structures(cpu)
        for _ in range(self.rng.randrange(1, 10)):
            kind = self.rng.random()
            structure, address = self.rng.choice(structures)
            # What it leads to may be another structure, or itself.
            near = self.rng.choice(structures)[1]
            if kind < 0.15:
                register = self.rng.choice(REGISTERS[self.panda.arch_name])
                self._registers.append((register, self.panda.arch.get_reg(cpu, register)))
                value = int.from_bytes(self._value(near, self.word), "little")
                self.panda.arch.set_reg(cpu, register, value)
                continue
            if kind < 0.22 and self._percpu is not None and self.panda.arch_name == "x86_64":
                # Which thread runs.
                at = cpu.env_ptr.segs[5].base + self._percpu
            elif kind < 0.8 and self.offsets.get(structure):
                at = address + self.rng.choice(list(self.offsets[structure].values()))
            else:
                at = address + self.word * self.rng.randrange(-4, 420)
            at &= (1 << self.panda.bits) - 1
            size = self.rng.choice((4, self.word))
            try:
                old = self._read(cpu, at, size)
                self.panda.virtual_memory_write(cpu, at, self._value(near, size))
            except ValueError:
                continue
            self._memory.append((at, old))
        self.cases += 1
        self.by_function[name] = self.by_function.get(name, 0) + 1
        self.dirty = True

    def _put_back(self, cpu: Any) -> None:
        for at, old in reversed(self._memory):
            self.panda.virtual_memory_write(cpu, at, old)
        for register, value in reversed(self._registers):
            self.panda.arch.set_reg(cpu, register, value)
        self.forget()

    def forget(self) -> None:
        """There is nothing to be put back."""
        self._memory.clear()
        self._registers.clear()
        self.dirty = False


def questions(event: Any) -> list[Any]:
    """What can be asked of whom an event happens to."""
    asked = []
    for process in (event.process, getattr(event, "child", None), getattr(event, "sender", None)):
        if process is not None:
            asked += [
                process.cmdline,
                process.environ,
                process.exe,
                process.mappings,
                process.files,
                process.threads,
                lambda p=process: p.symbol_at(0x401000),
            ]
    return asked


class Hostile:
    """A guest with a liar, and all that listens to events."""

    def __init__(self, arch: str, seed: int) -> None:
        self.panda = boot(arch)
        self.rng = random.Random(seed)
        self.tally = Tally(ValueError)
        self.heard = dict.fromkeys(KINDS, 0)
        self.lies = dict.fromkeys(KINDS, 0)
        self.counts: dict[str, int] = {}
        self.liar: Liar | None = None

    def count(self, name: str) -> Any:
        def function(*_args: Any) -> None:
            self.counts[name] = self.counts.get(name, 0) + 1

        return function

    def listen(self, kind: str) -> None:
        panda, rng, tally = self.panda, self.rng, self.tally

        @panda.os.on(kind, name=kind)
        def happened(event: Any) -> None:
            self.heard[kind] += 1
            if self.liar is None or not self.liar.dirty:
                return
            self.lies[kind] += 1
            for question in rng.sample(questions(event), 3):
                tally.attempt(question)
            tally.attempt(lambda: panda.os.current)
            tally.attempt(lambda: panda.get_process_name(panda.cpu))
            if kind == "signal" and rng.random() < 0.2 and event.number == 10:
                event.suppress()

    def start(self) -> Liar:
        """Load all that listens; the liar does nothing yet."""
        panda, count = self.panda, self.count
        panda.run_serial_cmd("true")
        panda.os.attach()
        liar = Liar(panda, self.rng)
        there = {}
        for name in FUNCTIONS:
            try:
                there[name] = panda.os.symbol(name).address
            except IntrospectionError:
                continue
        pairs = {name: liar.watch(name) for name in there}
        for name, address in there.items():
            panda.add_hook(address, pairs[name][0], kernel=True)
        for kind in KINDS:
            self.listen(kind)
        panda.load_plugin("asidstory")
        panda.plugins["signal"].block_sig_by_proc(12, b"nobody")
        for plugin, point, n in (
            ("hooks2", "on_process_start", 4),
            ("hooks2", "on_thread_end", 5),
            ("hooks2", "on_mmap_updated", 4),
            ("loaded", "on_library_load", 5),
            ("osi", "on_task_change", 1),
            ("proc_start_linux", "on_rec_auxv", 3),
            ("syscalls2", "on_all_sys_return", 3),
        ):
            made = eval(f"lambda f: lambda {', '.join('abcde'[:n])}: f()")(count(point))
            panda.ppp(plugin, point, name=point)(made)
        panda.hook_symbol_resolution("libc", "getuid")(count("resolved"))
        panda.cb_before_block_exec(count("named"), name="named", procname="cat", every=100)
        panda.stream("os", ("event", "pid"), on_batch=count("batches"))
        # The core's hooks are there before those that put all back.
        panda.run_serial_cmd(COMMANDS[0], timeout=60)
        for name, address in there.items():
            panda.add_hook(address, pairs[name][1], kernel=True)
        panda.run_serial_cmd("true")
        self.liar = liar
        return liar

    def result(self) -> dict[str, Any]:
        assert self.liar is not None
        return {
            **self.counts,
            **self.tally.counts,
            "heard": self.heard,
            "lies": self.lies,
            "cases": self.liar.cases,
            "functions": self.liar.by_function,
        }


def case_lies(arch: str, seed: int, wanted: int, folder: str) -> dict[str, Any]:
    os.chdir(folder)
    hostile = Hostile(arch, seed)
    panda = hostile.panda
    out: dict[str, Any] = {}

    def work() -> None:
        liar = hostile.start()
        liar.wanted, liar.armed = wanted, True
        while liar.cases < wanted:
            panda.run_serial_cmd(hostile.rng.choice(COMMANDS), timeout=120)
        liar.armed = False
        out["alive"] = panda.run_serial_cmd("echo alive; cat /etc/hostname")
        out["processes"] = len(panda.os.processes())

    in_guest(panda, work)
    return {**out, **hostile.result()}


@pytest.mark.parametrize("arch", REGISTERS)
def test_lies(arch: str, tmp_path: Path) -> None:
    wanted = 1000 * TIMES
    out = run_case(case_lies, arch, 11, wanted, str(tmp_path), timeout=180 * TIMES)
    assert out["cases"] >= wanted
    assert out["alive"].split()[0] == "alive" and out["processes"] > 20
    assert len(out["functions"]) >= 8, out["functions"]
    # Each kind was told of what is not true, and not all of it could be told.
    assert all(out["lies"].values()), out["lies"]
    assert out["answers"] > wanted and out["errors"] > wanted / 20
    for name in ("on_task_change", "on_mmap_updated", "on_all_sys_return", "named", "batches"):
        assert out[name] > 0, out


def case_ruins(arch: str, seed: int, rounds: int, folder: str) -> dict[str, Any]:
    """What is changed stays so, and the guest does with it what it can."""
    os.chdir(folder)
    hostile = Hostile(arch, seed)
    panda = hostile.panda
    out: dict[str, Any] = {"ended": 0, "whole": 0, "panics": 0}

    def ruin() -> None:
        panda.revert_sync("root")
        before = dict(hostile.heard)
        liar = hostile.start()
        # As it was: all comes as before.
        kinds = ("exec", "fork", "exit", "mmap", "open", "switch", "close")
        out["whole"] += all(hostile.heard[kind] > before[kind] for kind in kinds)
        liar.puts_back = False
        liar.wanted, liar.armed = 3, True
        panda.type_serial_cmd("; ".join(COMMANDS) + "\n")
        end = time.monotonic() + 20
        while not liar.cases and time.monotonic() < end:
            time.sleep(0.05)
        # What the guest makes of it; it may do nothing any more.
        time.sleep(0.4)
        out["ended"] += 1
        panda.end_analysis()

    for _ in range(rounds):
        panda.queue_blocking(ruin)
        try:
            panda.run()
        except GuestPanic:
            out["panics"] += 1
    return {**out, **hostile.result()}


@pytest.mark.parametrize("arch", REGISTERS)
def test_ruins(arch: str, tmp_path: Path) -> None:
    rounds = 8 * TIMES
    out = run_case(case_ruins, arch, 5, rounds, str(tmp_path), timeout=120 * TIMES)
    # It may panic when a round has ended, and the run has not.
    assert out["whole"] == rounds <= out["ended"] + out["panics"]
    assert sum(out["lies"].values()) >= rounds
