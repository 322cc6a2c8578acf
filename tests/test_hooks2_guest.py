"""hooks2: threads, and hooks of what runs between two places, against what a program says."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ctools import compile_for_guest
from guest import boot, in_guest, run_case

#: Says where its functions are, makes threads that say who they are, calls functions in turn.
PROGRAM = r"""
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

static volatile int n;

#define FUNCTION(name) static __attribute__((noinline)) void name(void) { n++; }
FUNCTION(before)
FUNCTION(begin)
FUNCTION(middle)
FUNCTION(end)
FUNCTION(after)

static void *work(void *unused)
{
    printf("thread %d\n", (int)syscall(SYS_gettid));
    return 0;
}

int main(void)
{
    pthread_t thread;
    int i;

    printf("at %lx %lx %lx %lx %lx\n", (long)before, (long)begin, (long)middle, (long)end,
           (long)after);
    printf("process %d\n", (int)getpid());
    for (i = 0; i < 3; i++) {
        pthread_create(&thread, 0, work, 0);
        pthread_join(thread, 0);
    }
    for (i = 0; i < 2; i++) {
        before();
        begin();
        middle();
        end();
        after();
    }
    return 0;
}
"""

TRIPLES = {
    "x86_64": "x86_64-linux-musl",
    "i386": "x86-linux-musl",
    "arm": "arm-linux-musleabi",
}
NAMES = ("before", "begin", "middle", "end", "after")


def case_program(arch: str, folder: str) -> dict[str, Any]:
    panda = boot(arch)
    out: dict[str, Any] = {"threads": [], "blocks": {}}

    @panda.ppp("hooks2", "on_thread_start")
    def starts(cpu: Any, procname: bytes, asid: int, pid: int, tid: int) -> None:
        out["threads"].append(["start", procname.decode(), pid, tid])

    @panda.ppp("hooks2", "on_thread_end")
    def ends(cpu: Any, procname: bytes, asid: int, pid: int, tid: int) -> None:
        out["threads"].append(["end", procname.decode(), pid, tid])

    def work() -> dict[str, Any]:
        panda.copy_to_guest(folder, timeout=60)
        panda.run_serial_cmd(
            f"cp {Path(folder).name}/program /tmp/traced; cp /tmp/traced /tmp/other; "
            "chmod +x /tmp/traced /tmp/other"
        )
        out["said"] = panda.run_serial_cmd("/tmp/traced", timeout=60)
        places = re.search("at (.*)", out["said"])
        assert places
        at = dict(zip(NAMES, (int(word, 16) & ~1 for word in places[1].split())))
        low, high = min(at.values()), max(at.values())
        plugin = panda.plugins["hooks2"]
        functype = plugin.add_hooks2.argtypes[0]
        kept = []

        def trace(name: str, *args: Any) -> int:
            seen = out["blocks"].setdefault(name, [])

            def block(cpu: Any, tb: Any, data: Any) -> bool:
                names = [n for n, place in at.items() if place == tb.contents.pc]
                who = panda.get_process_name(panda.cpu)
                seen.append([*names, "somewhere"][0])
                out.setdefault("who", {}).setdefault(name, Counter())[who] += 1
                out.setdefault("modes", {}).setdefault(name, set()).add(panda.in_kernel(panda.cpu))
                return False

            kept.append(functype(block))
            return int(plugin.add_hooks2(kept[-1], None, *args))

        between = (at["begin"], at["end"], low, high)
        numbers = [
            trace("between", False, b"traced", None, *between),
            trace("from", False, b"traced", None, at["middle"], 0, low, high),
            trace("range", False, b"traced", None, 0, 0, at["middle"], at["middle"]),
            trace("any", False, None, b"/tmp/", *between),
            trace("kernel", True, b"traced", None, 0, 0, 0, 0),
            trace("nobody", False, b"nobody", None, *between),
        ]
        out["numbers"] = numbers
        panda.run_serial_cmd("/tmp/traced; /tmp/other", timeout=60)
        plugin.disable_hooks2(numbers[0])
        out["then"] = len(out["blocks"]["between"])
        panda.run_serial_cmd("/tmp/traced", timeout=60)
        out["still"] = len(out["blocks"]["between"])
        out["wrong"] = [
            plugin.add_hooks2(kept[0], None, False, None, None, 0, 0, 2, 1),
            plugin.disable_hooks2(0),
        ]
        out["modes"] = {name: sorted(value) for name, value in out["modes"].items()}
        out["blocks"]["kernel"] = len(out["blocks"]["kernel"])
        return out

    return in_guest(panda, work)


@pytest.mark.parametrize("arch", TRIPLES)
def test_threads_and_traces(arch: str, tmp_path: Path) -> None:
    folder = tmp_path / "program"
    folder.mkdir()
    # -fno-pie: where its functions are is the same each time.
    options = ("-O1", "-static", "-s", "-fno-pie", "-no-pie", "-o", str(folder / "program"))
    done = compile_for_guest(PROGRAM, tmp_path, TRIPLES[arch], *options)
    assert done.returncode == 0, done.stderr
    out = run_case(case_program, arch, str(folder), timeout=300)
    pid = int(re.search(r"process (\d+)", out["said"])[1])  # type: ignore[index]
    threads = [int(tid) for tid in re.findall(r"thread (\d+)", out["said"])]
    assert len(threads) == 3
    own = [row for row in out["threads"] if row[2] == pid]
    assert own == [[what, "traced", pid, tid] for tid in threads for what in ("start", "end")]
    assert out["numbers"] == [1, 2, 3, 4, 5, 6]
    blocks = out["blocks"]
    calls = [name for name in blocks["between"] if name != "somewhere"]
    assert calls == ["begin", "middle"] * 2, calls
    # It goes on when it runs the next time.
    later = [name for name in blocks["from"] if name != "somewhere"]
    first = ["middle", "end", "after", "before", "begin", "middle", "end", "after"]
    assert later == [*first, *NAMES, *NAMES]
    assert blocks["range"] == ["middle"] * 4
    assert [name for name in blocks["any"] if name != "somewhere"] == ["begin", "middle"] * 6
    assert set(out["who"]["any"]) == {"other", "traced"}
    # The blocks in which the kernel goes from one thread to the other are of both.
    assert out["who"]["kernel"]["traced"] > 0.9 * blocks["kernel"]
    assert blocks["kernel"] > 100 and out["modes"]["kernel"] == [True]
    assert blocks["nobody"] == [] and out["modes"]["between"] == [False]
    assert out["then"] == out["still"] > 0
    assert all(number < 0 for number in out["wrong"])
