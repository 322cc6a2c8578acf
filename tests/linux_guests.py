"""All Linux guests: boot, commands, revert, a new process, copying, power-off.

Not collected by default, because it needs all guests (minutes to build) and
boots each of them anew: ``make test-guests``. Prints the CPU time of each boot;
the table in docs/guests.md is made from that.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import shlex
import time
from pathlib import Path
from typing import Any

import pytest
from guest import ROOT, boot, in_guest, run_case
from pages import serve

GUESTS = ROOT / "pandalite" / "_lib" / "guests"

#: What each boot to the prompt may take, in seconds of CPU time.
LIMIT = {"x86_64": 10.0, "i386": 10.0, "aarch64": 10.0, "riscv64": 10.0}
OTHER_LIMIT = 25.0

#: ``uname -m`` and byte order in the guest.
MACHINES = {
    "x86_64": ("x86_64", "little"),
    "i386": ("i686", "little"),
    "arm": ("armv7l", "little"),
    "aarch64": ("aarch64", "little"),
    "mips": ("mips", "big"),
    "mipsel": ("mips", "little"),
    "mips64": ("mips64", "big"),
    "mips64el": ("mips64", "little"),
    "ppc": ("ppc", "big"),
    "ppc64": ("ppc64", "big"),
    "ppc64el": ("ppc64le", "little"),
    "riscv64": ("riscv64", "little"),
}

_TIMES: dict[str, float] = {}


@pytest.fixture(params=MACHINES, scope="module")
def guest(request: Any, tmp_path_factory: Any) -> tuple[str, dict[str, str]]:
    """A guest's name, and the environment with a cold cache for it."""
    home = tmp_path_factory.mktemp(f"home-{request.param}")
    return request.param, {"PANDALITE_HOME": str(home)}


@pytest.fixture(scope="module", autouse=True)
def report() -> Any:
    yield
    print("\nCPU seconds to the prompt:")
    for name, seconds in _TIMES.items():
        print(f"  {name:10} {seconds:5.1f}")
    if _TIMES:
        out = ROOT / "build" / "guest-times.json"
        out.parent.mkdir(exist_ok=True)
        out.write_text(json.dumps(_TIMES, indent=1) + "\n")


def manifest(arch: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((GUESTS / arch / "manifest.json").read_text())
    return facts


#: What the guests fetch.
PAGE = b"from outside"


def case_first(arch: str) -> dict[str, Any]:
    """With a cold cache: the boot, and what is in the guest."""
    panda = boot(arch)
    booted = resource.getrusage(resource.RUSAGE_CHILDREN)
    url = f"http://10.0.2.2:{serve(lambda path: PAGE)}/"

    def work() -> dict[str, Any]:
        def run(command: str) -> str:
            return str(panda.run_serial_cmd(command, timeout=60))

        found = {
            "machine": run("uname -m"),
            "release": run("uname -r"),
            "order": run("printf '\\1\\0' | od -An -tx2").strip(),
            "notes": run("od -An -v -tx1 /sys/kernel/notes | tr -d ' \\n'"),
            "root": run("id -u"),
            "user": run("su user -c 'id -u; echo ~'").split(),
            "libc": run("cat /proc/self/maps | grep -c 'libc[.-]'"),
            "proc": run("grep -c MemTotal /proc/meminfo"),
            "static": run("busybox cat /proc/self/maps | grep -c 'libc[.-]'"),
            "page": run(f"wget -q -O - {url}"),
            "before": run("echo kept > /tmp/file; cat /tmp/file"),
            "endianness": panda.endianness,
        }
        panda.revert_sync("root")
        found["after"] = run("cat /tmp/file")
        return found

    result = in_guest(panda, work)
    result["cpu"] = booted.ru_utime + booted.ru_stime
    return dict(result)


def case_again(arch: str) -> dict[str, Any]:
    """In a new process, from the snapshot: time goes on as it should."""
    panda = boot(arch)

    def work() -> dict[str, Any]:
        begin = time.monotonic()
        output = panda.run_serial_cmd("sleep 2; uname -m", timeout=60)
        return {"machine": output, "seconds": time.monotonic() - begin}

    found: dict[str, Any] = in_guest(panda, work)
    return found


def case_copy(arch: str, folder: str) -> list[str]:
    """Copy a directory into the guest; the checksums of names and contents there."""
    panda = boot(arch)
    name = shlex.quote(Path(folder).name)
    listing = "find . -print0 | LC_ALL=C sort -z | sha256sum"
    contents = "find . -type f -print0 | LC_ALL=C sort -z | xargs -0 cat | sha256sum"

    def work() -> list[str]:
        panda.copy_to_guest(folder, timeout=170)
        command = f"cd ./{name} && {{ {listing}; {contents}; }}"
        return [line.split()[0] for line in panda.run_serial_cmd(command, timeout=120).splitlines()]

    sums: list[str] = in_guest(panda, work)
    return sums


def case_power_off(arch: str) -> bool:
    """Whether a guest that is told to powers itself off, which ends the run."""
    from pandalite.errors import GuestShutdown

    panda = boot(arch)

    @panda.queue_blocking
    def body() -> None:
        panda.revert_sync("root")
        panda.run_serial_cmd_async("poweroff")

    try:
        panda.run()
    except GuestShutdown:
        return True
    return False


def test_first_boot(guest: tuple[str, dict[str, str]]) -> None:
    arch, env = guest
    found = run_case(case_first, arch, env=env, timeout=300)
    machine, order = MACHINES[arch]
    facts = manifest(arch)
    _TIMES[arch] = round(found["cpu"], 1)
    assert found["machine"] == machine
    assert found["release"] == facts["kernel"]["release"]
    assert found["order"] == ("0001" if order == "little" else "0100")
    assert found["endianness"] == order
    assert found["root"] == "0"
    assert found["user"] == ["1000", "/home/user"]
    assert int(found["libc"]) >= 2 and found["static"] == "0"
    assert found["proc"] == "1"
    assert found["page"] == "from outside"
    assert found["before"] == "kept"
    assert "No such file" in found["after"]
    if facts["kernel"]["build_id"]:
        assert facts["kernel"]["build_id"] in found["notes"]
    assert found["cpu"] < LIMIT.get(arch, OTHER_LIMIT)


def test_again_in_a_new_process(guest: tuple[str, dict[str, str]]) -> None:
    arch, env = guest
    found = run_case(case_again, arch, env=env)
    assert found["machine"] == MACHINES[arch][0]
    # Without a timer it sleeps for half a minute (MIPS), or not at all.
    assert 1.5 < found["seconds"] < 10


def test_copy_to_guest(guest: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    arch, env = guest
    folder = make_tree(tmp_path / "odd näme's", 20_000_000)
    sums = run_case(case_copy, arch, str(folder), env=env, timeout=400)
    assert sums == [names_sum(folder), contents_sum(folder)]


def test_power_off(guest: tuple[str, dict[str, str]]) -> None:
    arch, env = guest
    assert run_case(case_power_off, arch, env=env, timeout=60) is True


def make_tree(folder: Path, size: int) -> Path:
    """A directory tree of `size` bytes with names that shells and tools trip over."""
    source = random.Random(7)
    names = [
        *("a b", "-rf", "*", "$HOME", "it's", 'say "hi"', "back\\slash", "ünïcödé", "日本語"),
        *("UPPER", "upper", "x" * 200, ".hidden", "a;b", "tab\there", "[x]", "~", "#", "dots..."),
    ]
    places = [folder, folder / "sub dir", folder / "sub dir" / "déep" / "-deeper", folder / "e"]
    for place in places:
        place.mkdir(parents=True)
    each = size // (len(names) * 3)
    for place in places[:3]:
        for name in names:
            (place / name).write_bytes(source.randbytes(each))
    (folder / "empty").write_bytes(b"")
    (folder / "rest").write_bytes(source.randbytes(size - each * len(names) * 3))
    return folder


def names_sum(folder: Path) -> str:
    names = [b"."]
    for path in folder.rglob("*"):
        names.append(b"./" + os.fsencode(path.relative_to(folder)))
    return hashlib.sha256(b"".join(n + b"\0" for n in sorted(names))).hexdigest()


def contents_sum(folder: Path) -> str:
    total = hashlib.sha256()
    files = [p for p in folder.rglob("*") if p.is_file()]
    for path in sorted(files, key=lambda p: b"./" + os.fsencode(p.relative_to(folder))):
        total.update(path.read_bytes())
    return total.hexdigest()
