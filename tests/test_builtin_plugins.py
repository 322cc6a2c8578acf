"""The built-in plugins that need no operating system: what they report and write."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import bare_programs as programs
import pytest
from guest import boot, in_guest, run_case
from replays import record_commands
from test_bare_machine import machine

from pandalite.errors import PluginError


def case_calls(arch: str) -> dict[str, Any]:
    """A file's name is handed from function to function in the kernel."""
    panda = boot(arch)
    seen: list[Any] = []

    @panda.ppp("callwitharg", "on_call_match_str")
    def text(cpu: Any, func: int, args: Any, value: bytes, index: int, read: int) -> None:
        at = args[index]
        seen.append([func == panda.current_pc(cpu), value.decode(), index, read,
                     panda.read_str(cpu, at)])  # fmt: skip

    panda.plugins["callwitharg"].add_target_string(b"/proc/version")

    def work() -> None:
        panda.run_serial_cmd("cat /proc/version")
        seen.append(len(seen))
        panda.plugins["callwitharg"].remove_target_string(b"/proc/version")
        panda.run_serial_cmd("cat /proc/version")

    in_guest(panda, work)
    return {"seen": seen}


@pytest.mark.parametrize("arch", ["x86_64", "arm"])
def test_callwitharg_texts(arch: str) -> None:
    *seen, count = run_case(case_calls, arch)["seen"]
    assert count == len(seen) >= 2
    for at_entry, value, index, read, text in seen:
        assert at_entry
        assert value == text == "/proc/version"
        assert index in (0, 1)
        assert read == 2


def case_numbers(program: str) -> list[Any]:
    panda = machine(program)
    want = programs.expected(program, panda.register_size)
    wanted = want.sums[-2]  # which is what the function doubles
    panda.load_plugin("callwitharg", {"targets": f"{wanted:x}_nonsense", "N": 3})
    seen: list[Any] = []

    @panda.ppp("callwitharg", "on_call_match_num")
    def number(cpu: Any, func: int, args: Any, index: int, read: int) -> None:
        seen.append([func, args[index] == wanted, index, read])

    panda.run_until(address=want.end, timeout=30)
    return seen


@pytest.mark.parametrize("program", ["arm", "thumb", "aarch64", "ppc64", "riscv64"])
def test_callwitharg_numbers(program: str) -> None:
    # Where the accumulator is the first argument too.
    assert run_case(case_numbers, program) == [[programs.label(program, "func"), True, 0, 3]]


def case_strings(arch: str, folder: str) -> dict[str, Any]:
    panda = boot(arch)
    seen: list[Any] = []
    (Path(folder) / "s_search_strings.txt").write_text('"haystack"\n6e:65:65:64:6c:65\n')
    panda.load_plugin("stringsearch", {"name": f"{folder}/s", "str": "straw"})

    @panda.ppp("stringsearch", "on_ssm")
    def found(cpu: Any, pc: int, addr: int, matched: Any, size: int, is_write: bool,
              in_memory: bool) -> None:  # fmt: skip
        seen.append([bytes(matched[0:size]).decode(), is_write, in_memory,
                     pc == panda.current_pc(cpu)])  # fmt: skip

    def work() -> None:
        panda.run_serial_cmd("echo nee''dle in a hay''stack, no st-raw")

    in_guest(panda, work)
    lines = (Path(folder) / "s_string_matches.txt").read_text().splitlines()
    return {"seen": seen, "lines": lines}


@pytest.mark.parametrize("arch", ["x86_64", "arm"])
def test_stringsearch(arch: str, tmp_path: Path) -> None:
    found = run_case(case_strings, arch, str(tmp_path))
    count = Counter((text, is_write) for text, is_write, _, _ in found["seen"])
    for text in ("needle", "haystack"):
        assert count[text, False] > 0
        assert count[text, True] > 0
    assert not [text for text, _ in count if text == "straw"]
    assert any(in_memory for _, _, in_memory, _ in found["seen"])
    assert all(exact for *_, exact in found["seen"])
    total: Counter[int] = Counter()
    for line in found["lines"]:
        *place, straw, haystack, needle = line.split()
        assert place[-1] in ("read", "write")
        assert straw == "0"
        total.update({0: int(haystack), 1: int(needle)})
        assert len(place) >= 3
    assert total[0] == count["haystack", False] + count["haystack", True]
    assert total[1] == count["needle", False] + count["needle", True]


def case_coverage(arch: str, folder: str) -> dict[str, Any]:
    panda = boot(arch)
    found: dict[str, Any] = {}

    def rows(name: str) -> list[list[str]]:
        with (Path(folder) / name).open() as file:
            return list(csv.reader(file))

    def work() -> None:
        with panda.coverage(kernel=False) as covered:
            panda.load_plugin("coverage", {"filename": f"{folder}/blocks.csv", "privilege": "user"})
            panda.run_serial_cmd("uname -a")
            panda.unload_plugin("coverage")
        head, *blocks = rows("blocks.csv")
        pcs = {int(pc, 16) for _, _, pc, _ in blocks}
        theirs = {block.pc for block in covered.blocks}
        found["head"] = head
        # They did not begin and end at the same block.
        found["same"] = [len(pcs - theirs), len(theirs - pcs) * 100 // len(theirs)]
        found["user"] = {kernel for _, kernel, _, _ in blocks} == {"0"}
        found["twice"] = len(blocks) - len({tuple(row) for row in blocks})
        found["asids"] = len({asid for asid, *_ in blocks})

        panda.load_plugin("coverage", {"mode": "edge", "start_disabled": True})
        panda.run_monitor_cmd(f"plugin_cmd coverage_enable={folder}/edges.csv")
        panda.run_serial_cmd("uname -a")
        panda.run_monitor_cmd("plugin_cmd coverage_disable")
        panda.run_serial_cmd("uname -a")
        panda.unload_plugin("coverage")
        head, *edges = rows("edges.csv")
        found["edges"] = [head, len(edges) == len({tuple(edge) for edge in edges}) > 1000]

        arguments = {"filename": f"{folder}/sum.csv", "summary": "yes", "privilege": "kernel",
                     "exclude_pc": "0-0x7fffffff"}  # fmt: skip
        panda.load_plugin("coverage", arguments)
        panda.run_serial_cmd("uname -a")
        panda.unload_plugin("coverage")
        head, *sums = rows("sum.csv")
        found["summary"] = [head, all(int(n) > 10 for _, n in sums), len(sums) > 0]

        arguments = {"filename": f"{folder}/osi.csv", "mode": "osi-block", "privilege": "user"}
        panda.load_plugin("coverage", {**arguments, "process_name": "uname"})
        panda.run_serial_cmd("uname -a; (uname -a); ls / > /dev/null")
        panda.unload_plugin("coverage")
        head, *blocks = rows("osi.csv")
        found["osi"] = [
            head,
            sorted({name for name, *_ in blocks}),
            len({(pid, tid) for _, pid, tid, *_ in blocks}),
            len(blocks) - len({tuple(row) for row in blocks}),
            len(blocks) > 1000,
        ]
        panda.load_plugin("coverage", {**arguments, "summary": True})
        panda.run_serial_cmd("uname -a; ls / > /dev/null")
        panda.unload_plugin("coverage")
        head, *sums = rows("osi.csv")
        found["osi summary"] = [head, len(sums) >= 3]

    in_guest(panda, work)
    return found


@pytest.mark.parametrize("arch", ["x86_64", "arm"])
def test_coverage(arch: str, tmp_path: Path) -> None:
    found = run_case(case_coverage, arch, str(tmp_path))
    assert found["head"] == ["asid", "in kernel", "block address", "block size"]
    assert found["same"][0] == 0
    assert found["same"][1] <= 5
    assert found["user"]
    assert found["twice"] == 0
    assert found["asids"] >= 2
    assert found["edges"] == [["asid", "from pc", "to pc"], True]
    assert found["summary"] == [["asid", "blocks"], True, True]
    head = ["process name", "process id", "thread id", "in kernel", "block address", "block size"]
    assert found["osi"] == [head, ["uname"], 2, 0, True]
    assert found["osi summary"] == [["process id", "thread id", "blocks"], True]


def case_refusals() -> list[str]:
    panda = machine("x86_64")
    texts = []
    for name, args in (
        ("coverage", {"mode": "nonsense"}),
        ("coverage", {"pc": "5"}),
        ("coverage", {"privilege": "root"}),
        ("coverage", {"hook_filter": "cat"}),
        ("coverage", {"filename": "/nowhere/at/all.csv"}),
        ("callwitharg", {"N": 17}),
        ("callstack_instr", {"stack_type": "tall"}),
        ("network", {}),
        ("network", {"file": "/nowhere/at/all.pcap"}),
        ("scissors", {"name": "x", "start": "soon"}),
        ("scissors", {"name": "x", "colour": "red"}),
        ("checkpoint", {"space": "much"}),
    ):
        try:
            panda.load_plugin(name, args)
        except PluginError as error:
            texts.append(str(error))
        assert name not in panda.plugins
    return texts


def test_refusals() -> None:
    assert run_case(case_refusals) == [
        "plugin coverage: mode=nonsense is none of asid-block, osi-block, edge",
        "plugin coverage: pc=5 is no range low-high",
        "plugin coverage: privilege=root is none of all, user, kernel",
        "plugin coverage: hook_filter is not there yet",
        "plugin coverage: /nowhere/at/all.csv cannot be written: No such file or directory",
        "plugin callwitharg: N is a number of 1 to 16",
        "plugin callstack_instr: stack_type=tall is none of asid, heuristic, threaded",
        "plugin network needs the argument file",
        "plugin network: /nowhere/at/all.pcap cannot be written: [Errno 2] No such file or "
        "directory: '/nowhere/at/all.pcap'",
        "plugin scissors: invalid literal for int() with base 0: 'soon'",
        "plugin scissors has no argument colour; it has: name, start, end",
        "plugin checkpoint: space=much is no size, like 6G",
    ]


def case_id(program: str) -> list[bool]:
    panda = machine(program)
    want = programs.expected(program, panda.register_size)
    plugin = panda.plugins["hw_proc_id"]
    seen: list[bool] = []

    @panda.cb_after_machine_init(name="pointer")
    def pointer(cpu: Any) -> None:
        if program.startswith("mips"):
            panda.arch.set_reg(cpu, "GP", 0x12345678)

    @panda.hook(programs.label(program, "func"))
    def look(cpu: Any, tb: Any, hook: Any) -> None:
        expected = panda.current_asid(cpu)
        if program.startswith("mips"):
            expected = 0x12345678 & (~0x1FFF if panda.bits == 64 else ~0)
        seen.append(plugin.id_is_initialized() and plugin.get_id(cpu) == expected)

    panda.run_until(address=want.end, timeout=30)
    return seen


@pytest.mark.parametrize("program", ["x86_64", "arm", "mips", "mips64el"])
def test_hw_proc_id(program: str) -> None:
    assert run_case(case_id, program) == [True]


# --- replays ---


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """A recording with some packets."""
    path = str(tmp_path_factory.mktemp("recording") / "ping")
    commands = ["ping -c 2 -W 1 10.0.2.2 > /dev/null", "ls -l /bin | md5sum"]
    return path, run_case(record_commands, "x86_64", path, commands)


def case_network(path: str, out: str) -> list[int]:
    panda = boot()
    packets: list[int] = []

    @panda.cb_replay_handle_packet
    def packet(cpu: Any, buf: Any, size: int, direction: int, where: int) -> None:
        packets.append(size)

    panda.load_plugin("network", {"file": out})
    panda.run_replay(path)
    assert "network" not in panda.plugins
    return packets


def test_network(recording: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    out = tmp_path / "out.pcap"
    packets = run_case(case_network, recording[0], str(out))
    data = out.read_bytes()
    assert data[:8] == bytes.fromhex("4d3cb2a102000400")
    assert int.from_bytes(data[20:24], "little") == 1
    at, sizes, pings, times = 24, [], 0, []
    while at < len(data):
        second, part, kept, size = (
            int.from_bytes(data[at + 4 * n : at + 4 * n + 4], "little") for n in range(4)
        )
        at += 16
        packet = data[at : at + kept]
        at += kept
        times.append(second * 10**9 + part)
        sizes.append(size)
        # IPv4, ICMP, an echo request or its answer.
        pings += packet[12:14] == b"\x08\x00" and packet[23] == 1 and packet[34] in (0, 8)
    assert sizes == packets
    assert pings == 4
    assert times == sorted(times)
    assert times[-1] < recording[1]["instructions"]


def case_scissors(path: str, out: str, start: int, end: int) -> list[Any]:
    panda = boot()
    panda.load_plugin("scissors", {"name": out, "start": start, "end": end})
    plugin = panda.plugins["scissors"]
    panda.run_replay(path)
    part = plugin.part
    loaded = list(panda.plugins)
    panda.run_replay(out)
    return [part, panda.record_report().instructions, loaded]


def test_scissors(recording: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    total = recording[1]["instructions"]
    start, end = total // 4, total // 2
    part, length, loaded = run_case(case_scissors, recording[0], str(tmp_path / "part"), start, end)
    assert part[0] <= start < end <= part[1]
    assert length == part[1] - part[0]
    assert loaded == []


def case_checkpoint(path: str) -> list[Any]:
    panda = boot()
    panda.load_plugin("checkpoint", {"space": "300M"})
    with panda.replay(path) as replay:
        middle = replay.run_to(replay.total // 2)
        back = replay.reverse_step(5)
    panda.unload_plugin("checkpoint")
    return [middle - back, list(panda.plugins)]


def test_checkpoint(recording: tuple[str, dict[str, Any]]) -> None:
    assert run_case(case_checkpoint, recording[0]) == [5, []]
