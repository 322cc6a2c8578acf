"""The serial console and copy_to_guest, with real guests."""

from __future__ import annotations

import hashlib
import os

import pytest
from guest import boot, in_guest, run_case

ARCHES = ["x86_64", "i386"]


def case_console():
    panda = boot()
    found = {}

    def work():
        run = panda.run_serial_cmd
        long = "echo " + "x" * 1500
        found["long"] = run(long) == "x" * 1500
        numbers = "\n".join(str(n) for n in range(1, 3001))
        found["much"] = run("seq 1 3000", timeout=60) == numbers
        found["no newline"] = run("printf abc")
        found["colour"] = run(r"printf '\033[31mred\033[0m\n'")
        found["empty"] = run("true")
        found["utf-8"] = run("echo grün")
        found["lines"] = run("echo one\necho two")
        found["bytes"] = run(b"echo bytes")
        try:
            run("sleep 60", timeout=0.5)
        except Exception as error:
            found["timeout"] = type(error).__name__
        # Ctrl-C in the guest, and the console is in step again.
        panda.type_serial_cmd(b"\x03")
        panda.finish_serial_cmd()
        found["after"] = run("echo $((6 * 7))")
        panda.run_serial_cmd_async("echo async > /tmp/async", delay=0.3)
        found["async"] = run("cat /tmp/async")
        panda.type_serial_cmd("echo ty")
        panda.type_serial_cmd("ped")
        found["typed"] = panda.finish_serial_cmd()
        panda.type_serial_cmd("echo raw-$((1 + 1))-end\n")
        found["raw"] = panda.serial_read_until(b"-2-end").decode().rsplit("\n", 1)[-1]

    in_guest(panda, work)
    return found


def test_console():
    found = run_case(case_console)
    assert found == {
        "long": True,
        "much": True,
        "no newline": "abc",
        "colour": "red",
        "empty": "",
        "utf-8": "grün",
        "lines": "one\ntwo",
        "bytes": "bytes",
        "timeout": "TimeoutExpired",
        "after": "42",
        "async": "async",
        "typed": "typed",
        "raw": "raw",
    }


def case_copy(arch, folder):
    panda = boot(arch)
    found = {}

    def work():
        panda.copy_to_guest(folder)
        name = os.path.basename(folder)
        found["sums"] = panda.run_serial_cmd(f"cd {name} && sha256sum big 'with space' dir/deep")
        found["mode"] = panda.run_serial_cmd("stat -c %a script; readlink link; cat marker")
        try:
            panda.copy_to_guest(folder + "-missing")
        except Exception as error:
            found["missing"] = [c.__name__ for c in type(error).__mro__] + [str(error)]
        try:
            panda.copy_to_guest(folder, cdrom="nosuchdrive")
        except Exception as error:
            found["drive"] = [c.__name__ for c in type(error).__mro__] + [str(error)]
        found["alive"] = panda.run_serial_cmd("echo $((6 * 7))")

    in_guest(panda, work)
    return found


@pytest.mark.parametrize("arch", ARCHES)
def test_copy_to_guest(arch, tmp_path):
    folder = tmp_path / "tree"
    (folder / "dir").mkdir(parents=True)
    contents = {"big": os.urandom(300_001), "with space": b"spaced\n", "dir/deep": b"deep\n"}
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    (folder / "script").write_text("#!/bin/sh\n")
    (folder / "script").chmod(0o755)
    (folder / "link").symlink_to("dir/deep")
    (folder / "setup.sh").write_text("#!/bin/sh\necho set-up > $(dirname $0)/marker\n")
    (folder / "setup.sh").chmod(0o755)
    found = run_case(case_copy, arch, str(folder))
    sums = [line.split()[0] for line in found["sums"].splitlines()]
    assert sums == [hashlib.sha256(data).hexdigest() for data in contents.values()]
    mode, link, marker = found["mode"].splitlines()
    assert mode in ("755", "555")
    assert link == "dir/deep"
    assert marker == "set-up"
    for name, word in (("missing", "missing"), ("drive", "nosuchdrive")):
        assert "PandaError" in found[name], found[name]
        assert word in found[name][-1]
    assert found["alive"] == "42"
