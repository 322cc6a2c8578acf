"""Processes of several threads, with type information and without, against /proc/PID/task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ctools import compile_for_guest
from guest import boot, in_guest, run_case
from test_os_guest import at_rest, lines_of

#: Three threads with names that begin one after the other, beside the first; one ends.
PROGRAM = r"""
#include <pthread.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

static void *work(void *name)
{
    prctl(PR_SET_NAME, name);
    if (((char *)name)[0] == 's') {
        for (;;) {
            __asm__ volatile("");
        }
    }
    sleep(((char *)name)[0] == 'e' ? 0 : 1000);
    return 0;
}

int main(void)
{
    static char *const names[] = {"idle one", "ends", "spins", "idle two"};
    pthread_t thread;
    int i;

    for (i = 0; i < 4; i++) {
        pthread_create(&thread, 0, work, names[i]);
        usleep(100000);
    }
    puts("ready");
    fflush(stdout);
    sleep(1000);
    return 0;
}
"""

TRIPLES = {"x86_64": "x86_64-linux-musl", "i386": "x86-linux-musl"}


def case_threads(arch: str, folder: str) -> dict[str, Any]:
    panda = boot(arch)

    def work() -> dict[str, Any]:
        panda.copy_to_guest(folder, timeout=60)
        panda.run_serial_cmd(f"cp {Path(folder).name}/threads /tmp/threads; chmod +x /tmp/threads")
        panda.run_serial_cmd("/tmp/threads > /tmp/out & ")
        panda.run_serial_cmd("until grep -q ready /tmp/out; do sleep 0.1; done", timeout=60)
        pid = int(panda.run_serial_cmd("pidof threads").split()[0])
        truth = lines_of(
            panda, f"for t in /proc/{pid}/task/*; do echo ${{t##*/}} $(cat $t/comm); done"
        )
        status = lines_of(panda, f"grep -h ^PPid /proc/{pid}/task/*/status")
        found = at_rest(
            panda,
            lambda cpu: [
                [t.tid, t.name, t.pid, t.ppid, t.kernel_thread, t.mm]
                for t in panda.os.process(pid).threads()
            ],
        )
        seen: dict[str, list[int]] = {}

        @panda.cb_before_block_exec(name="who", procname="spins", kernel=False, first=50)
        def who(cpu: Any, tb: Any) -> None:
            current = panda.os.current
            seen[current.name] = [current.pid, current.tid]

        panda.run_serial_cmd("sleep 1")
        panda.delete_callback("who")
        everyone = at_rest(panda, lambda cpu: [[t.pid, t.tid] for t in panda.os.threads()])
        own = at_rest(
            panda,
            lambda cpu: {
                "maps": len({tuple(m.start for m in t.mappings()) for t in _threads(panda, pid)}),
                "files": len({tuple(f.path for f in t.files()) for t in _threads(panda, pid)}),
                "lists": sorted({len(t.threads()) for t in _threads(panda, pid)}),
                "report": panda.os.report(),
            },
        )
        return {"pid": pid, "truth": truth, "status": status, "found": found, "seen": seen,
                "everyone": everyone, **own}  # fmt: skip

    return in_guest(panda, work)


def _threads(panda: Any, pid: int) -> list[Any]:
    return list(panda.os.process(pid).threads())


@pytest.mark.parametrize("arch", TRIPLES)
def test_threads(arch: str, tmp_path: Path) -> None:
    folder = tmp_path / "program"
    folder.mkdir()
    options = ("-O1", "-static", "-s", "-o", str(folder / "threads"))
    done = compile_for_guest(PROGRAM, tmp_path, TRIPLES[arch], *options)
    assert done.returncode == 0, done.stderr
    out = run_case(case_threads, arch, str(folder), timeout=300)
    pid = out["pid"]
    assert [f"{t[0]} {t[1]}" for t in out["found"]] == out["truth"]
    assert sorted(t[1] for t in out["found"]) == ["idle one", "idle two", "spins", "threads"]
    parents = {int(line.split()[1]) for line in out["status"]}
    # The parent, that it has one map of its memory, and that it is no part of the kernel.
    assert {t[3] for t in out["found"]} == parents and len(parents) == 1
    assert {(t[2], t[4]) for t in out["found"]} == {(pid, False)}
    assert len({t[5] for t in out["found"]}) == 1 and out["found"][0][5]
    spinner = next(t[0] for t in out["found"] if t[1] == "spins")
    assert out["seen"] == {"spins": [pid, spinner]}
    assert sorted(t for p, t in out["everyone"] if p == pid) == sorted(t[0] for t in out["found"])
    assert out["maps"] == out["files"] == 1 and out["lists"] == [4]
    assert ("(inferred" in out["report"]) == (arch == "i386")
