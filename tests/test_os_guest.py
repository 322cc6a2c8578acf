"""The guest's operating system as panda.os sees it, compared with its own /proc."""

from __future__ import annotations

import random
import re
import threading
from typing import Any

from guest import boot, in_guest, run_case
from hostile import Tally

from pandalite.errors import IntrospectionError

#: Processes to look at: one that sleeps with files open, one that spins.
SETUP = (
    "exec 5</etc/passwd",
    "read -n 3 x <&5",
    "sleep 1000 6</dev/zero &",
    "exec 5<&-",
    "ODD='two words' sh -c 'while :; do :; done' 'odd name' 3>'/tmp/a b' &",
)


def lines_of(panda: Any, command: str) -> list[str]:
    return panda.run_serial_cmd(command, timeout=60).splitlines()


def at_rest(panda: Any, look: Any) -> Any:
    """Call look() in a callback while the guest stands still."""
    done = threading.Event()
    results: list[Any] = []

    @panda.cb_before_block_exec(name="look")
    def before_block_exec(cpu: Any, tb: Any) -> None:
        if not done.is_set():
            try:
                results.append(look(cpu))
            except IntrospectionError as error:
                results.append(error)
            done.set()

    panda.flush_tb()
    assert done.wait(60)
    panda.delete_callback("look")
    if isinstance(results[0], Exception):
        raise results[0]
    return results[0]


def stat_of(text: str) -> dict[int, tuple[str, int]]:
    found = {}
    for pid, name, parent in re.findall(r"^(\d+) \((.*)\) \S (\d+)", text, re.MULTILINE):
        found[int(pid)] = (name[:15], int(parent))
    return found


def case_processes(arch: str) -> dict[str, Any]:
    panda = boot(arch)
    return in_guest(panda, lambda: look_at(panda))


def look_at(panda: Any) -> dict[str, Any]:
    """What panda.os says of a guest at its prompt, and what its own /proc says."""
    out: dict[str, Any] = {}
    for command in SETUP:
        panda.run_serial_cmd(command)
    stats = panda.run_serial_cmd("cat /proc/[0-9]*/stat", timeout=60)
    out["stat"] = stat_of(stats)
    found = at_rest(panda, lambda cpu: panda.os.processes())
    out["found"] = {p.pid: (p.name, p.ppid) for p in found if p.pid}
    old = panda.cpu
    out["dict"] = at_rest(panda, lambda cpu: panda.get_processes_dict(old))
    users = [p for p in found if p.mm]
    out["seen"] = {}
    for p in users:
        proc = f"/proc/{p.pid}"
        out["seen"][p.pid] = {
            "maps": lines_of(panda, f"cat {proc}/maps"),
            "mappings": at_rest(panda, lambda cpu, p=p: p.mappings()),
            "shell": panda.run_serial_cmd("echo $$").strip() == str(p.pid),
            "fd": lines_of(
                panda,
                f"for f in {proc}/fd/*; do l=$(readlink $f) && echo ${{f##*/}} $l; done",
            ),
            "files": at_rest(panda, lambda cpu, p=p: p.files()),
            "status": lines_of(panda, f"grep -E '^([UG]id|Threads)' {proc}/status"),
            "ids": [p.uid, p.euid, p.gid, p.egid],
            "cmdline": lines_of(panda, f"tr '\\0' '\\n' < {proc}/cmdline"),
            "argv": at_rest(panda, lambda cpu, p=p: p.cmdline()),
            "environ": at_rest(panda, lambda cpu, p=p: p.environ()),
            "exe": lines_of(panda, f"readlink {proc}/exe"),
            "program": at_rest(panda, lambda cpu, p=p: p.exe()),
            "positions": lines_of(
                panda, f"for f in {proc}/fdinfo/*; do grep pos: $f 2>/dev/null; done"
            ),
            "threads": at_rest(panda, lambda cpu, p=p: [t.tid for t in p.threads()]),
        }
    out["proc_modules"] = lines_of(panda, "cat /proc/modules")
    try:
        out["modules"] = at_rest(
            panda, lambda cpu: [(m.name, m.base, m.size) for m in panda.os.modules()]
        )
    except IntrospectionError as error:
        out["modules"] = str(error)
    out["knows_positions"] = "file.f_pos" in panda.os.report()
    out["release"] = panda.os.release
    out["uname"] = panda.run_serial_cmd("uname -r")
    out["layout"] = (
        "BTF"
        if "task_struct.tasks" in panda.os.report() and "(BTF)" in panda.os.report()
        else "inferred"
    )
    return out


def check_processes(out: dict[str, Any]) -> None:
    """What was found in memory is what the guest says of itself."""
    assert out["release"] == out["uname"].strip()
    truth = {int(pid): tuple(value) for pid, value in out["stat"].items()}
    found = {int(pid): tuple(value) for pid, value in out["found"].items()}
    # `cat` itself has ended; kworkers come and go and change their names.
    truth = {p: v for p, v in truth.items() if v[0] != "cat"}
    differing = {
        p
        for p in truth.keys() | found.keys()
        if truth.get(p) != found.get(p) and not (truth.get(p) or found[p])[0].startswith("kworker")
    }
    assert not differing, {p: (truth.get(p), found.get(p)) for p in differing}
    assert len(found) > 20
    assert {int(p) for p in out["dict"]} - {0} == set(found)
    for pid, seen in out["seen"].items():
        check_maps(seen)
        files = {f[0]: f[1] for f in seen["files"]}
        links = {int(line.split(" ", 1)[0]): line.split(" ", 1)[1] for line in seen["fd"]}
        if seen["shell"]:
            # The shell reads what readlink prints.
            links = {fd: path for fd, path in links.items() if not path.startswith("pipe:")}
        assert files == links, pid
        if out["knows_positions"]:
            assert [f[2] for f in seen["files"]] == [int(p.split()[1]) for p in seen["positions"]]
        uid, gid, threads = (line.split()[1:] for line in sorted_status(seen["status"]))
        assert seen["ids"] == [int(uid[0]), int(uid[1]), int(gid[0]), int(gid[1])]
        assert [seen["program"]] == seen["exe"]
        assert seen["argv"] == [word for word in seen["cmdline"] if word]
        assert seen["threads"] == [int(pid)] and threads == ["1"]
    if isinstance(out["modules"], list):
        truth_modules = [line.split() for line in out["proc_modules"]]
        assert [list(m) for m in out["modules"]] == [
            [t[0], int(t[5], 16), int(t[1])] for t in truth_modules
        ]


def sorted_status(lines: list[str]) -> list[str]:
    by_name = {line.split(":")[0]: line for line in lines}
    return [by_name["Uid"], by_name["Gid"], by_name["Threads"]]


def check_maps(seen: dict[str, Any]) -> None:
    truth = []
    for line in seen["maps"]:
        start, end, rights, offset, inode, path = re.fullmatch(
            r"(\w+)-(\w+) (\S+) (\w+) \S+ (\d+)\s*(.*)", line
        ).groups()  # type: ignore[union-attr]
        if path in ("[vectors]", "[vsyscall]"):
            # The kernel shows it, but it is no mapping of the process.
            continue
        has_file = inode != "0"
        truth.append(
            [int(start, 16), int(end, 16), rights, int(offset, 16) * has_file, path * has_file]
        )
    found = [[*m[:4], m[4] if m[4].startswith("/") else ""] for m in seen["mappings"]]
    assert found == truth
    named = {m[4] for m in seen["mappings"]}
    assert ("[stack]" in named) == any("[stack]" in line for line in seen["maps"])


def _plain(value: Any) -> Any:
    """Mappings and files as lists, for JSON."""
    if hasattr(value, "vma"):
        return [value.start, value.end, value.rights, value.offset, value.path]
    if hasattr(value, "position"):
        return [value.fd, value.path, value.position]
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def case_processes_plain(arch: str) -> dict[str, Any]:
    return _plain(case_processes(arch))


def test_processes() -> None:
    out = run_case(case_processes_plain, "x86_64")
    check_processes(out)
    assert out["knows_positions"]
    assert isinstance(out["modules"], list) and len(out["modules"]) > 10
    odd = [s for s in out["seen"].values() if s["argv"][-1:] == ["odd name"]]
    assert len(odd) == 1 and odd[0]["environ"]["ODD"] == "two words"
    assert "/tmp/a b" in [f[1] for f in odd[0]["files"]]
    sleep = [s for s in out["seen"].values() if s["argv"][:1] == ["sleep"]]
    assert [f[1] for f in sleep[0]["files"] if f[0] == 5] == ["/etc/passwd"]


def case_pypanda() -> dict[str, Any]:
    panda = boot()
    out: dict[str, Any] = {}

    def work() -> dict[str, Any]:
        panda.run_serial_cmd("true")

        def look(cpu: Any) -> None:
            p = panda.get_current_process(cpu)
            out["same"] = p.pid == panda.os.current.pid
            out["name"] = [p.name.decode(), panda.get_process_name(cpu)]
            out["fields"] = [p.taskd == p.task, p.pages is None, p.asid == panda.current_asid(cpu)]
            maps = panda.get_mappings(cpu)
            m = panda.get_mapping_by_addr(cpu, panda.current_pc(cpu))
            out["pc"] = [m.name, m.file, m.base <= panda.current_pc(cpu) < m.base + m.size]
            out["kinds"] = sorted({x.name.decode() for x in maps if x.name.startswith(b"[")})
            out["none"] = panda.get_mapping_by_addr(cpu, 1)
            out["files"] = [panda.get_file_name(cpu, fd) for fd in (1, 999, -1, 1 << 40)]
            out["files"] = [f and f.decode() for f in out["files"]]

        done = threading.Event()

        @panda.cb_before_block_exec(kernel=False, procname="cat", name="look")
        def before_block_exec(cpu: Any, tb: Any) -> None:
            if not done.is_set():
                done.set()
                look(cpu)

        panda.run_serial_cmd("cat /etc/passwd")
        assert done.is_set()
        panda.delete_callback("look")
        return out

    return in_guest(panda, work)


def test_pypanda_names() -> None:
    out = run_case(case_pypanda)
    assert out["same"] and out["name"] == ["cat", "cat"]
    assert out["fields"] == [True, True, True]
    assert out["pc"][1].startswith("/") and out["pc"][1].endswith(out["pc"][0]) and out["pc"][2]
    assert "[stack]" in out["kinds"] and "[???]" in out["kinds"]
    assert out["none"] is None
    assert out["files"] == ["/dev/ttyS0", None, None, None]


def case_names() -> dict[str, Any]:
    panda = boot()
    counts: dict[str, int] = {}
    users: set[str] = set()
    modes: set[bool] = set()
    out: dict[str, Any] = {}

    @panda.cb_before_block_exec(procname="sha256sum", name="one")
    def one(cpu: Any, tb: Any) -> None:
        name = panda.get_process_name(cpu)
        counts[name] = counts.get(name, 0) + 1
        modes.add(panda.in_kernel(cpu))
        if not panda.in_kernel(cpu):
            users.add(name)

    def work() -> dict[str, Any]:
        panda.run_serial_cmd("ls / | sha256sum; cat /etc/passwd | wc -l")
        out["first"] = dict(counts)
        panda.run_serial_cmd("ls -l / | wc -l; cat /etc/passwd")
        out["none"] = dict(counts)
        panda.revert_sync("root")
        panda.run_serial_cmd("echo | sha256sum")
        out["again"] = dict(counts)
        out["modes"] = sorted(modes)
        out["users"] = sorted(users)
        seen: list[int] = []
        some = panda.counter("block", procname="md5sum")
        nobody = panda.counter("block", procname="nobody")
        stream = panda.stream(
            "block", ("pc",), procname="md5sum", on_batch=lambda batch: seen.append(len(batch))
        )
        panda.run_serial_cmd("ls / | md5sum; ls / | sha256sum")
        stream.close()
        out["some"], out["nobody"], out["stream"] = some.value, nobody.value, sum(seen)
        return out

    return in_guest(panda, work)


def test_names() -> None:
    out = run_case(case_names)
    assert out["users"] == ["sha256sum"] and out["first"]["sha256sum"] > 1000
    # The blocks in which the kernel goes from one thread to the other are of both.
    assert out["first"]["sha256sum"] > 0.97 * sum(out["first"].values())
    assert out["none"] == out["first"]
    assert out["again"]["sha256sum"] > out["first"]["sha256sum"]
    assert out["modes"] == [False, True]
    assert out["some"] > 1000 and out["stream"] == out["some"]
    assert out["nobody"] == 0


def case_symbols() -> dict[str, Any]:
    panda = boot()

    def work() -> dict[str, Any]:
        truth = {}
        for line in lines_of(panda, "cat /proc/kallsyms | grep -v '\\['")[:]:
            address, _, name = line.split()[:3]
            truth.setdefault(name, set()).add(int(address, 16))
        wrong = [
            name for name, places in truth.items() if panda.os.symbol(name).address not in places
        ]
        start = panda.os.symbol("do_exit").address
        missing = ""
        try:
            panda.os.symbol("no_such_symbol")
        except IntrospectionError as error:
            missing = str(error)
        return {
            "n": len(truth),
            "wrong": wrong[:5],
            "at": [str(panda.os.symbol_at(start)), str(panda.os.symbol_at(start + 5))],
            "below": panda.os.symbol_at(0x1000) is None,
            "missing": missing,
            "report": panda.os.report(),
        }

    return in_guest(panda, work)


def test_symbols() -> None:
    out = run_case(case_symbols)
    assert out["n"] > 50000 and out["wrong"] == []
    assert out["at"] == ["do_exit", "do_exit+0x5"]
    assert "no_such_symbol" in out["missing"]
    assert "task_struct.tasks" in out["report"] and "VMCOREINFO: yes" in out["report"]


# ---- no kernel there, and guests that lie ----


def case_nothing() -> list[str]:
    from pandalite import Panda

    panda = Panda(arch="x86_64", extra_args=["-display", "none"])
    said: list[str] = []

    @panda.cb_before_block_exec(first=1, every=1000)
    def before_block_exec(cpu: Any, tb: Any) -> None:
        said.append(repr(panda.get_current_process(cpu)))
        said.append(repr(panda.get_process_name(cpu)))
        try:
            panda.get_processes(cpu)
        except IntrospectionError as error:
            said.append(str(error))
        panda.end_analysis()

    panda.run()
    return said


def test_nothing_there() -> None:
    said = run_case(case_nothing)
    assert said[:2] == ["None", "None"]
    assert "BTF" in said[2] and "Linux" in said[2]


def case_hostile(seed: int, rounds: int) -> dict[str, int]:
    """Guest memory is changed at random, mostly where the kernel's lists are."""
    panda = boot()
    rng = random.Random(seed)
    tally = Tally(ValueError)
    out, attempt = tally.counts, tally.attempt

    def look(cpu: Any) -> None:
        processes = panda.os.processes()
        places = [a for p in processes for a in (p.task, p.mm) if a]
        for p in processes:
            if p.mm:
                places += [m.vma for m in p.mappings()] + [f.file for f in p.files()]
        users = [p for p in processes if p.mm]
        for _ in range(rounds):
            saved = []
            for _ in range(rng.randrange(1, 6)):
                at = rng.choice(places) + 8 * rng.randrange(-4, 420)
                try:
                    old = panda.virtual_memory_read(cpu, at, 8)
                except ValueError:
                    continue
                new = rng.choice(
                    [
                        rng.randbytes(8),
                        rng.choice(places).to_bytes(8, "little"),
                        (rng.choice(places) + 8 * rng.randrange(400)).to_bytes(8, "little"),
                        at.to_bytes(8, "little"),
                        bytes(8),
                        b"\xff" * 8,
                        b"\x1b[31m\n%n",
                    ]
                )
                saved.append((at, old))
                panda.virtual_memory_write(cpu, at, new)
            out["rounds"] += 1
            attempt(panda.os.processes)
            attempt(lambda: panda.os.current)
            attempt(lambda: panda.get_process_name(cpu))
            victim = rng.choice(users if rng.random() < 0.8 else processes)
            for function in (
                victim.mappings,
                victim.files,
                victim.sockets,
                victim.threads,
                victim.cmdline,
                victim.exe,
            ):
                attempt(function)
            for at, old in reversed(saved):
                panda.virtual_memory_write(cpu, at, old)
        assert len(panda.os.processes()) == len(processes)

    def work() -> None:
        panda.run_serial_cmd("sleep 1000 &")
        at_rest(panda, look)

    in_guest(panda, work)
    return out


def test_hostile() -> None:
    out = run_case(case_hostile, 7, 1000)
    assert out["rounds"] == 1000
    assert out["answers"] > 1000 and out["errors"] > 10


# ---- events ----


def case_events() -> dict[str, Any]:
    panda = boot()
    out: dict[str, Any] = {"starts": [], "changes": 0, "names": []}

    @panda.ppp("proc_start_linux", "on_rec_auxv")
    def on_rec_auxv(cpu: Any, tb: Any, av: Any) -> None:
        out["starts"].append(
            {
                "argv": [a.value.decode() for a in av.argv[: av.argc]],
                "envc": av.envc,
                "env": [a.value.decode() for a in av.envp[: min(av.envc, 20)]],
                "execfn": av.execfn.decode(),
                "entry": av.entry,
                "pagesz": av.pagesz,
                "ids": [av.uid, av.egid],
                "name": panda.get_process_name(cpu),
                "pid": panda.os.current.pid,
                "maps": [m.path for m in panda.os.current.mappings()],
            }
        )

    @panda.ppp("osi", "on_task_change")
    def on_task_change(cpu: Any) -> None:
        out["changes"] += 1
        out["names"].append(panda.get_process_name(cpu))

    def work() -> dict[str, Any]:
        panda.run_serial_cmd("X=1 cat /etc/hostname 'a b'; ls / | head -n 1")
        panda.disable_ppp("on_rec_auxv")
        before = len(out["starts"])
        panda.run_serial_cmd("ls /")
        out["after"] = len(out["starts"]) - before
        return out

    return in_guest(panda, work)


def test_events() -> None:
    out = run_case(case_events)
    starts = {s["name"]: s for s in out["starts"]}
    assert next(s["name"] for s in out["starts"]) == "cat"
    assert {"cat", "ls", "head"} == set(starts)
    cat = starts["cat"]
    assert cat["argv"] == ["cat", "/etc/hostname", "a b"] and "X=1" in cat["env"]
    assert cat["execfn"].endswith("cat") and cat["pagesz"] == 4096 and cat["ids"] == [0, 0]
    assert cat["entry"] and any(path.endswith("cat") for path in cat["maps"])
    assert out["changes"] > 6 and {"cat", "ls", "head", "bash"} <= set(out["names"])
    assert out["after"] == 0
