"""Each example runs, for each architecture, and prints what it promises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
ARCHES = ["x86_64", "i386"]
TIMEOUT = 180

#: What `uname -m` prints, and a register every guest of the kind has.
MACHINE = {"x86_64": "x86_64", "i386": "i686"}
STACK = {"x86_64": "RSP", "i386": "ESP"}


def run(name: str, *arguments: str) -> str:
    """Run an example; returns what it printed."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "Traceback" not in done.stderr
    return done.stdout


def test_every_example_is_tested() -> None:
    here = Path(__file__).read_text()
    for file in EXAMPLES.glob("*.py"):
        assert f'run("{file.stem}"' in here, f"no test runs {file.name}"


def test_default_architecture() -> None:
    assert " x86_64 GNU/Linux\n" in run("count_blocks")


@pytest.mark.parametrize("arch", ARCHES)
def test_count_blocks(arch: str) -> None:
    output, blocks = run("count_blocks", arch).splitlines()
    assert output.startswith(f"Linux debian-{arch} ")
    assert output.endswith(f" {MACHINE[arch]} GNU/Linux")
    found = re.fullmatch(r"([\d,]+) basic blocks", blocks)
    assert found
    # Reading a line, fork, exec, dynamic linking: some hundred thousand.
    assert 20_000 < int(found[1].replace(",", "")) < 20_000_000


@pytest.mark.parametrize("arch", ARCHES)
def test_strace(arch: str) -> None:
    text = run("strace", "cat /etc/hostname", arch)
    assert re.search(r'^execve\("[^"]*cat", \["cat", "/etc/hostname"\], .*\) = 0$', text, re.M)
    assert re.search(r'^read\(3, "debian-\w+\\n", \d+\) = \d+$', text, re.M)
    assert f"exit_group(0) = ?\n--- cat /etc/hostname printed:\ndebian-{arch}\n" in text


@pytest.mark.parametrize("arch", ARCHES)
def test_print_regs(arch: str) -> None:
    text = run("print_regs", arch)
    head, *dumps = re.split(r"--- block (?=\d)", text)
    assert head == ""
    assert [int(dump[0]) for dump in dumps] == [1, 2, 3]
    pcs, asids = set(), set()
    for dump in dumps:
        size, asid = re.match(r"\d: (\d+) instructions, asid (0x[0-9a-f]+)\n", dump).groups()
        assert 0 < int(size) < 512
        asids.add(asid)
        registers = dict(re.findall(r"^(\w+): (0x[0-9a-f]+)", dump, re.MULTILINE))
        assert STACK[arch] in registers
        assert len(registers) == (17 if arch == "x86_64" else 9)
        pcs.add(registers["PC"])
        # User code and its stack are in the lower part of the address space.
        limit = 1 << 47 if arch == "x86_64" else 0xC0000000
        assert 0 < int(registers["PC"], 16) < limit
        assert 0 < int(registers[STACK[arch]], 16) < limit
    assert len(pcs) > 1
    assert len(asids) == 1  # the shell's
    # Pointers are followed: the shell has just read the line from the terminal.
    assert '-> "cat /proc/versio"' in text
    assert text.splitlines()[-1].startswith("Linux version ")


@pytest.mark.parametrize("arch", ARCHES)
def test_toggle_callbacks(arch: str) -> None:
    head, *lines = run("toggle_callbacks", arch).splitlines()
    assert head.split() == ["callbacks", "on", "blocks", "writes", "seconds"]
    rows = [re.fullmatch(r"(.+?) +([\d,]+) +([\d,]+) +(\d+\.\d+)", line).groups() for line in lines]
    counts = [(label, *(int(n.replace(",", "")) for n in row)) for label, *row, _ in rows]
    assert [label for label, *_ in counts] == [
        "none",
        "blocks",
        "none",
        "writes",
        "blocks, writes",
        "none",
    ]
    for label, blocks, writes in counts:
        # Off is off, but for the one event that is under way at that moment.
        assert (blocks > 100_000) if "blocks" in label else (blocks == 0)
        assert (writes > 100_000) if "writes" in label else (writes == 0)
    # The same command takes about as many blocks every time it is counted.
    first, second = (blocks for label, blocks, _ in counts if "blocks" in label)
    assert abs(first - second) < first / 3


@pytest.mark.parametrize("arch", ["x86_64", "arm"])
def test_emulate(arch: str) -> None:
    written, left = run("emulate", arch).splitlines()
    assert re.fullmatch(r"write at 0x100[0-9a-f]{2}: 'hello\\n'", written)
    # The start with the first round, five more, and what is behind each system call.
    assert re.fullmatch(r"exit at 0x100[0-9a-f]{2} after 8 blocks", left)


@pytest.mark.parametrize("arch", ARCHES)
def test_watch_memory(arch: str) -> None:
    found, *writes, last = run("watch_memory", arch).splitlines()
    assert last == "the file now: CHANGED.is text!"
    places = [int(place, 16) for place in re.findall(r"0x[0-9a-f]+", found)]
    assert len(places) > 1
    page = next(place for place in places if place % 4096 == 0)
    pattern = r"(kernel|program) at 0x[0-9a-f]+ writes (b'.*') over (b'.*') at (0x[0-9a-f]+)"
    old, new = bytearray(b"watch this text!"), bytearray(b"watch this text!")
    for line in writes:
        who, value, before, address = re.fullmatch(pattern, line).groups()
        assert who == "kernel"  # the program asks it to write
        at = int(address, 16) - page
        value, before = value[2:-1].encode(), before[2:-1].encode()
        assert bytes(old[at : at + len(before)]) == before
        new[at : at + len(value)] = value
    # What was reported is what changed the file.
    assert bytes(new) == b"CHANGED.is text!"
