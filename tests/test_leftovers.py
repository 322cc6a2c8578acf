"""Nothing is left behind: files, sockets, threads, processes, descriptors."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from guest import boot, in_guest, run_case


def descriptors():
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            continue
    return found


def tasks():
    return sorted(
        Path(f"/proc/self/task/{t}/comm").read_text() for t in os.listdir("/proc/self/task")
    )


def case_leftovers(temporary):
    from pandalite.qcows import cache

    home = Path(cache.home())
    before = {"fds": len(descriptors()), "tmp": os.listdir(temporary)}
    panda = boot()
    in_guest(panda, lambda: panda.run_serial_cmd("true"))
    # While the machine exists its disk is open, and nameless.
    disk = [name for name in descriptors() if name.startswith(str(home / "run"))]
    panda.panda_finish()
    return {
        "disk": disk,
        "threads": [t.name for t in threading.enumerate()],
        "tasks": tasks(),
        "fds": [before["fds"], len(descriptors())],
        "open": descriptors(),
        "tmp": [before["tmp"], os.listdir(temporary)],
        "run": os.listdir(home / "run"),
        "children": Path(f"/proc/self/task/{os.getpid()}/children").read_text(),
        "sockets": [n for n in descriptors() if n.startswith("socket")],
    }


def test_leftovers(tmp_path):
    result = run_case(case_leftovers, str(tmp_path), env={"TMPDIR": str(tmp_path)})
    assert len(result["disk"]) == 1 and result["disk"][0].endswith("(deleted)")
    assert result["threads"] == ["MainThread"]
    # The main thread and QEMU's RCU thread, which the library starts when loaded.
    assert len(result["tasks"]) <= 2, result["tasks"]
    # QEMU keeps an event descriptor or two for its main loop.
    before, after = result["fds"]
    assert after - before <= 8, result["open"]
    assert result["sockets"] == []
    assert result["tmp"] == [[], []]
    assert result["run"] == []
    assert result["children"].strip() == ""


def case_failed_constructors():
    from pandalite import Panda

    before = None
    for number in range(50):
        for kwargs in ({"arch": "vax"}, {"arch": "x86_64", "qcow": "/no/such.qcow2"}):
            try:
                Panda(**kwargs)
            except ValueError:
                pass
            except Exception:
                pass
        if number == 5:
            before = len(descriptors())
    return [before, len(descriptors()), len(threading.enumerate())]


def test_failed_constructors():
    before, after, threads = run_case(case_failed_constructors)
    assert after == before
    assert threads == 1
