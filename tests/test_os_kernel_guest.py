"""What panda.os tells of the kernel itself, compared with the guest's own words.

What is mounted, the log, the time since the boot, symbols of modules.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from guest import boot, in_guest, run_case
from hostile import Tally
from test_os_guest import at_rest, lines_of

from pandalite.errors import IntrospectionError

# ---- what is mounted ----

MOUNTS = (
    "mkdir -p '/tmp/a b' /tmp/ro /tmp/bind /tmp/above /tmp/gone /tmp/jail/inner",
    "mount -t tmpfs -o nosuid,nodev,noexec,noatime 'some thing' '/tmp/a b'",
    "mount -t tmpfs -o ro none /tmp/ro",
    "mount --bind /tmp/a\\ b /tmp/bind; mount -o remount,bind,ro /tmp/bind",
    "mount -t tmpfs lower /tmp/above; mkdir /tmp/above/x; mount -t tmpfs inner /tmp/above/x",
    "mount -t tmpfs upper /tmp/above",
    "mount -t tmpfs gone /tmp/gone; umount /tmp/gone",
    # A process with another root, and what is mounted below it.
    "mount -t tmpfs jailed /tmp/jail/inner",
    "mkdir -p /tmp/jail/bin; mount --bind /bin /tmp/jail/bin",
    "for d in lib lib64 usr proc; do [ -d /$d ] && mkdir -p /tmp/jail/$d && "
    "mount --bind /$d /tmp/jail/$d; done",
)


def _mounts(text: str) -> list[list[Any]]:
    """Of /proc/mounts: source, path, kind, options, in the order of their names."""
    rows = []
    for line in text.splitlines():
        source, path, kind, options = (
            word.replace("\\040", " ").replace("\\011", "\t") for word in line.split()[:4]
        )
        rows.append([source, path, kind, options.split(",")])
    return sorted(rows)


def case_mounts(arch: str) -> dict[str, Any]:
    panda = boot(arch)

    def work() -> dict[str, Any]:
        for command in MOUNTS:
            panda.run_serial_cmd(command, timeout=60)
        panda.run_serial_cmd("chroot /tmp/jail sleep 1000 &", timeout=60)
        panda.run_serial_cmd("sleep 1", timeout=60)
        pid = int(panda.run_serial_cmd("pidof sleep").split()[0])
        out: dict[str, Any] = {
            "truth": _mounts(panda.run_serial_cmd("cat /proc/mounts", timeout=60)),
            "jail truth": _mounts(panda.run_serial_cmd(f"cat /proc/{pid}/mounts", timeout=60)),
        }

        def look(cpu: Any) -> None:
            for key, process in (("found", None), ("jail", panda.os.process(pid))):
                out[key] = sorted(
                    [m.source, m.path, m.kind, m.options] for m in panda.os.mounts(process)
                )
            known = {m.mount: m for m in panda.os.mounts()}
            out["parents"] = all(m.parent in known for m in known.values())
            out["no task"] = _refusal(lambda: panda.libpanda.panda_os_mounts(1, None, 0))

        def _refusal(function: Any) -> str:
            return str(panda._error(function()))

        at_rest(panda, look)
        return out

    return in_guest(panda, work)


def _same_mounts(found: list[Any], truth: list[Any]) -> None:
    # Equal rows differ in the file system's own options alone.
    assert [row[:3] for row in found] == [row[:3] for row in truth]
    for row in found:
        assert any(t[:3] == row[:3] and t[3][: len(row[3])] == row[3] for t in truth), row


@pytest.mark.parametrize("arch", ["x86_64", "i386"])
def test_mounts(arch: str) -> None:
    out = run_case(case_mounts, arch)
    _same_mounts(out["found"], out["truth"])
    _same_mounts(out["jail"], out["jail truth"])
    by_path = {row[1]: row for row in out["found"]}
    assert by_path["/tmp/a b"] == [
        "some thing",
        "/tmp/a b",
        "tmpfs",
        ["rw", "nosuid", "nodev", "noexec", "noatime"],
    ]
    assert by_path["/tmp/ro"][3][0] == "ro" and by_path["/tmp/bind"][3][0] == "ro"
    assert [row[0] for row in out["found"] if row[1] == "/tmp/above"] == ["lower", "upper"]
    assert "/tmp/gone" not in by_path and out["parents"]
    assert ["jailed", "/inner", "tmpfs"] in [row[:3] for row in out["jail"]]
    assert "/tmp/a b" not in [row[1] for row in out["jail"]]
    assert "no process" in out["no task"]


# ---- the log ----


def case_log(arch: str) -> dict[str, Any]:
    panda = boot(arch)

    def work() -> dict[str, Any]:
        panda.run_serial_cmd("echo '<3>an error of mine' > /dev/kmsg")
        panda.run_serial_cmd("printf 'two\\nlines' > /dev/kmsg; echo > /dev/kmsg")
        panda.run_serial_cmd("i=0; while [ $i -lt 200 ]; do echo \"n $i\" > /dev/kmsg; "
                             "i=$((i + 1)); done", timeout=60)  # fmt: skip
        raw = lines_of(panda, "dmesg -r")
        plain = lines_of(panda, "dmesg")
        found = at_rest(panda, lambda cpu: panda.os.dmesg())
        # More than fits: the oldest are gone, and the ring has begun anew.
        panda.run_serial_cmd(
            "x=0123456789; x=$x$x$x$x$x$x$x$x; i=0; while [ $i -lt 4000 ]; do "
            'echo "$i $x" > /dev/kmsg; i=$((i + 1)); done',
            timeout=170,
        )
        tail = lines_of(panda, "dmesg -r | tail -n 300")
        wrapped = at_rest(panda, lambda cpu: panda.os.dmesg())
        return {
            "raw": raw,
            "plain": plain,
            "found": [_raw(m) for m in found],
            "text": [str(m) for m in found],
            "numbers": [m.sequence for m in found],
            "levels": [[m.level, m.facility] for m in found if m.text == "an error of mine"],
            "wrapped": [_raw(m) for m in wrapped][-400:],
            "later numbers": [m.sequence for m in wrapped],
            "tail": tail,
        }

    return in_guest(panda, work)


def _raw(message: Any) -> str:
    """As the kernel gives it to programs: its level in front of each line."""
    level = f"<{message.facility * 8 + message.level}>"
    return "\n".join(level + line for line in str(message).split("\n"))


@pytest.mark.parametrize("arch", ["x86_64", "i386"])
def test_log(arch: str) -> None:
    out = run_case(case_log, arch, timeout=400)
    # What the kernel logs after the listing is not in it.
    n = len(out["raw"])
    assert "\n".join(out["found"]).split("\n")[:n] == out["raw"]
    assert "\n".join(out["text"]).split("\n")[: len(out["plain"])] == out["plain"]
    assert len(out["raw"]) > 400
    assert out["numbers"] == list(range(len(out["numbers"])))
    assert out["levels"] == [[3, 1]]
    first, last = out["later numbers"][0], out["later numbers"][-1]
    assert out["later numbers"] == list(range(first, last + 1)) and first > 0
    start = out["wrapped"].index(out["tail"][0])
    assert out["wrapped"][start : start + 300] == out["tail"]


# ---- since the boot ----


def case_uptime(arch: str) -> dict[str, Any]:
    panda = boot(arch)
    out: dict[str, Any] = {"pairs": []}

    @panda.ppp("syscalls2", "on_sys_read_return")
    def on_sys_read_return(cpu: Any, pc: int, fd: int, buf: int, count: int) -> None:
        if panda.get_process_name(cpu) == "head":
            n = panda.arch.get_retval(cpu, convention="syscall")
            text = panda.virtual_memory_read(cpu, buf, n) if 0 < n < 100 else b""
            words = text.split()
            if len(words) == 2 and b"." in words[0] and b"." in words[1]:
                out["pairs"].append([float(words[0]), panda.os.uptime()])

    def work() -> dict[str, Any]:
        for _ in range(8):
            panda.run_serial_cmd("sleep 0.3; head -n 1 /proc/uptime")
        return out

    return in_guest(panda, work)


@pytest.mark.parametrize("arch", ["x86_64", "i386"])
def test_uptime(arch: str) -> None:
    out = run_case(case_uptime, arch)
    assert len(out["pairs"]) >= 8
    # The guest says it in hundredths, and its kernel ticks each 4 ms at the least.
    for true, found in out["pairs"]:
        assert -0.012 < found - true < 0.022, out["pairs"]
    assert out["pairs"][-1][1] - out["pairs"][0][1] > 2


# ---- symbols of modules ----


LOADED = "cat /proc/modules"


def case_module_symbols(arch: str) -> dict[str, Any]:
    panda = boot(arch)

    def work() -> dict[str, Any]:
        truth: dict[tuple[str, str], set[int]] = {}
        at: dict[int, set[tuple[str, str]]] = {}
        for line in lines_of(panda, "grep '\\[' /proc/kallsyms"):
            address, _, name, module = line.split()
            key = (name, module.strip("[]"))
            truth.setdefault(key, set()).add(int(address, 16))
            at.setdefault(int(address, 16), set()).add(key)
        areas = [(m.base, m.base + m.size) for m in panda.os.modules()]
        wrong: list[Any] = []
        outside = 0

        def look(cpu: Any) -> None:
            nonlocal outside
            for (name, module), places in truth.items():
                found = panda.os.symbol(f"{module}:{name}")
                if found.address not in places or found.module != module:
                    wrong.append([name, module, hex(found.address)])
            for address, names in at.items():
                if all(name.startswith((".L", "$")) for name, _ in names):
                    continue  # the assembler's marks, which the kernel passes over too
                symbol = panda.os.symbol_at(address)
                if (symbol.name, symbol.module) in names and not symbol.offset:
                    continue
                if any(start <= address < end for start, end in areas):
                    wrong.append([hex(address), sorted(names), str(symbol)])
                else:
                    # Of each CPU's own memory: not in the module's.
                    outside += 1

        at_rest(panda, look)
        (name, module), places = max(truth.items())
        inside = at_rest(panda, lambda cpu: str(panda.os.symbol_at(min(places) + 1)))
        missing = []
        for text in (f"{module}:no_such", f"no_such:{name}"):
            with pytest.raises(IntrospectionError) as error:
                panda.os.symbol(text)
            missing.append(str(error.value))
        loaded = [
            [[w[0], int(w[5], 16), int(w[1])] for w in map(str.split, lines_of(panda, LOADED))]
        ]
        listed = [
            at_rest(panda, lambda cpu: [[m.name, m.base, m.size] for m in panda.os.modules()])
        ]
        for change in ("rmmod isofs; rmmod virtio_net", "modprobe isofs"):
            panda.run_serial_cmd(change, timeout=60)
            loaded.append(
                [[w[0], int(w[5], 16), int(w[1])] for w in map(str.split, lines_of(panda, LOADED))]
            )
            listed.append(
                at_rest(panda, lambda cpu: [[m.name, m.base, m.size] for m in panda.os.modules()])
            )
        later = sorted(
            {line.split()[2] for line in lines_of(panda, "grep 'isofs]' /proc/kallsyms")}
        )
        found_later = at_rest(
            panda, lambda cpu: [panda.os.symbol(f"isofs:{name}").address for name in later]
        )
        return {
            "loaded": loaded,
            "listed": listed,
            "later": [len(later), len(set(found_later))],
            "n": len(truth),
            "modules": len({module for _, module in truth}),
            "wrong": wrong[:10],
            "outside": outside,
            "inside": [inside, f"[{module}]"],
            "missing": missing,
            "kernel": str(panda.os.symbol_at(panda.os.symbol("do_exit").address + 5)),
        }

    return in_guest(panda, work)


@pytest.mark.parametrize("arch", ["x86_64", "i386"])
def test_module_symbols(arch: str) -> None:
    out = run_case(case_module_symbols, arch, timeout=400)
    assert out["listed"] == out["loaded"]
    assert len({len(some) for some in out["loaded"]}) > 1 and out["later"][0] > 5
    assert out["wrong"] == [] and out["n"] > 500 and out["modules"] > 10
    assert out["outside"] < out["n"] / 100
    assert out["inside"][0].endswith(out["inside"][1]) and "+0x1" in out["inside"][0]
    assert all("no symbol" in text for text in out["missing"])
    assert out["kernel"] == "do_exit+0x5"


# ---- all of it, for other kernels: linux_kernels.py ----


def look_at_kernel(panda: Any) -> dict[str, Any]:
    """What panda.os says of the kernel, and what it says itself."""
    out: dict[str, Any] = {"uptimes": []}

    def attempt(function: Any) -> Any:
        try:
            return at_rest(panda, lambda cpu: function())
        except IntrospectionError as error:
            return str(error)

    for command in MOUNTS[:6]:
        panda.run_serial_cmd(command, timeout=60)
    out["true mounts"] = _mounts(panda.run_serial_cmd("cat /proc/mounts", timeout=60))
    out["mounts"] = attempt(
        lambda: sorted([m.source, m.path, m.kind, m.options] for m in panda.os.mounts())
    )
    out["true log"] = lines_of(panda, "dmesg -r")
    out["log"] = attempt(lambda: "\n".join(map(_raw, panda.os.dmesg())).split("\n"))

    @panda.ppp("syscalls2", "on_sys_read_return", name="uptimes")
    def on_sys_read_return(cpu: Any, pc: int, fd: int, buf: int, count: int) -> None:
        if panda.get_process_name(cpu) == "head":
            n = panda.arch.get_retval(cpu, convention="syscall")
            words = panda.virtual_memory_read(cpu, buf, n).split() if 0 < n < 100 else []
            if len(words) == 2 and b"." in words[0]:
                try:
                    out["uptimes"].append([float(words[0]), panda.os.uptime()])
                except IntrospectionError as error:
                    out["uptimes"].append([float(words[0]), str(error)])

    panda.run_serial_cmd("sleep 0.3; head -n 1 /proc/uptime; sleep 0.3; head -n 1 /proc/uptime")
    panda.disable_ppp("uptimes")
    return out


def check_kernel(out: dict[str, Any]) -> list[str]:
    """What was found is what the kernel says; or why not: mounts, log, time, as a table has it."""
    said = ["not shown"] * 3
    if isinstance(out["mounts"], list):
        _same_mounts(out["mounts"], out["true mounts"])
        said[0] = f"{len(out['mounts'])} equal"
    if isinstance(out["log"], list):
        # What was logged after the listing is not in it.
        assert out["log"][: len(out["true log"])] == out["true log"]
        said[1] = f"{len(out['true log'])} lines equal"
    assert len(out["uptimes"]) == 2
    if not isinstance(out["uptimes"][0][1], str):
        # Between the kernel's word and the end of the system call the host may have been busy.
        assert all(-0.012 < found - true < 0.1 for true, found in out["uptimes"]), out["uptimes"]
        said[2] = "equal"
    return said


# ---- guests that lie ----


def case_hostile(seed: int, rounds: int) -> dict[str, int]:
    """The kernel's mounts, modules and log are changed at random."""
    panda = boot()
    rng = random.Random(seed)
    tally = Tally()
    out, attempt = tally.counts, tally.attempt

    def look(cpu: Any) -> None:
        modules = panda.os.modules()
        log = int.from_bytes(
            panda.virtual_memory_read(cpu, panda.os.symbol("prb").address, 8), "little"
        )
        places = [m.mount for m in panda.os.mounts()] + [m.module for m in modules]
        places += [log] * 20 + [panda.os.symbol("tk_core").address] * 5
        ring = panda.virtual_memory_read(cpu, log, 96)
        places += [
            int.from_bytes(ring[at : at + 8], "little")
            for at in range(0, 96, 8)
            if ring[at + 7] == 0xFF
        ] * 5
        whole = [panda.os.mounts(), modules, panda.os.dmesg()]

        for _ in range(rounds):
            saved = []
            for _ in range(rng.randrange(1, 6)):
                at = rng.choice(places) + 8 * rng.randrange(0, 60)
                try:
                    old = panda.virtual_memory_read(cpu, at, 8)
                except ValueError:
                    continue
                new = rng.choice(
                    [
                        rng.randbytes(8),
                        rng.choice(places).to_bytes(8, "little"),
                        (rng.choice(places) + 8 * rng.randrange(60)).to_bytes(8, "little"),
                        at.to_bytes(8, "little"),
                        bytes(8),
                        b"\xff" * 8,
                        rng.randrange(1 << 16).to_bytes(8, "little"),
                    ]
                )
                saved.append((at, old))
                panda.virtual_memory_write(cpu, at, new)
            out["rounds"] += 1
            module = rng.choice(modules)
            for function in (
                panda.os.mounts,
                panda.os.dmesg,
                panda.os.uptime,
                panda.os.modules,
                lambda m=module: panda.os.symbol_at(m.base + rng.randrange(m.size)),
                lambda m=module: panda.os.symbol(f"{m.name}:no_such_symbol"),
            ):
                attempt(function)
            for at, old in reversed(saved):
                panda.virtual_memory_write(cpu, at, old)
        assert [panda.os.mounts(), panda.os.modules(), panda.os.dmesg()] == whole

    in_guest(panda, lambda: at_rest(panda, look))
    return out


def test_hostile() -> None:
    out = run_case(case_hostile, 11, 300, timeout=400)
    assert out["rounds"] == 300
    assert out["answers"] > 300 and out["errors"] > 300


def case_hostile_inference(seed: int, rounds: int) -> dict[str, int]:
    """The layout is worked out anew in memory that was changed where it is looked for."""
    panda = boot("i386")
    rng = random.Random(seed)
    tally = Tally()
    out, attempt = tally.counts, tally.attempt

    def look(cpu: Any) -> None:
        def sockets() -> list[Any]:
            return [p.sockets() for p in panda.os.processes() if p.mm]

        functions = (
            *(panda.os.mounts, panda.os.modules, panda.os.uptime, panda.os.processes),
            sockets,
        )
        open_files = [f.file for p in panda.os.processes() if p.mm for f in p.files()]
        places = [m.mount for m in panda.os.mounts()] + [m.module for m in panda.os.modules()]
        places += [p.task + 800 for p in panda.os.processes()]
        places += open_files * 3
        whole = [function() for function in functions]
        for _ in range(rounds):
            saved = []
            for _ in range(rng.randrange(1, 12)):
                at = rng.choice(places) + 4 * rng.randrange(0, 80)
                new = rng.choice(
                    [
                        rng.randbytes(4),
                        rng.choice(places).to_bytes(4, "little"),
                        at.to_bytes(4, "little"),
                        bytes(4),
                    ]
                )
                saved.append((at, panda.virtual_memory_read(cpu, at, 4)))
                panda.virtual_memory_write(cpu, at, new)
            panda.os.use_profile(None)  # which makes it look anew
            out["rounds"] += 1
            for function in functions:
                attempt(function)
            for at, old in reversed(saved):
                panda.virtual_memory_write(cpu, at, old)
        panda.os.use_profile(None)
        assert [function() for function in functions] == whole

    def work() -> None:
        panda.run_serial_cmd("httpd -p 127.0.0.1:8080 -h /tmp; syslogd; sleep 1")
        at_rest(panda, look)

    in_guest(panda, work)
    return out


def test_hostile_inference() -> None:
    out = run_case(case_hostile_inference, 5, 60, timeout=400)
    assert out["rounds"] == 60 and out["answers"] > 60 and out["errors"] > 5
