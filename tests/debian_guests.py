"""The guests with a disk: boot, commands, packages, revert, a new process, copying, power-off.

Not collected by default: ``make test-guests`` runs it after the tiny guests. They
take minutes to build and need a Debian mirror, so those that are not built are
skipped, with the command that builds them.
"""

from __future__ import annotations

import json
import resource
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from guest import boot, in_guest, run_case
from linux_guests import (
    PAGE,
    case_again,
    case_copy,
    case_power_off,
    contents_sum,
    make_tree,
    names_sum,
)
from pages import serve

from pandalite.errors import ImageError
from pandalite.qcows import catalogue, tiny

#: What a boot to the prompt may take, in seconds of CPU time.
LIMIT = 20.0

_TIMES: dict[str, list[float]] = {}


@pytest.fixture(params=catalogue.debian_guests(), scope="module")
def guest(request: Any, tmp_path_factory: Any) -> tuple[str, dict[str, str]]:
    """A guest's name, and the environment with a cold cache for it."""
    name = request.param
    try:
        directory = tiny.find_guest(name).directory
    except ImageError:
        pytest.skip(f"{name} is not built: python tools/build_guest.py {name}")
    home = tmp_path_factory.mktemp(f"home-{name}")
    return name, {"PANDALITE_HOME": str(home), "PANDALITE_GUESTS": str(directory.parent)}


@pytest.fixture(scope="module", autouse=True)
def figures() -> Any:
    yield
    for name, (cpu, wall) in _TIMES.items():
        print(f"\n{name}: {cpu:.1f} CPU s to the prompt, second start {wall:.2f} s")


def case_first(name: str) -> dict[str, Any]:
    """With a cold cache: the boot, and what is in the guest."""
    panda = boot(name)
    booted = resource.getrusage(resource.RUSAGE_CHILDREN)
    url = f"http://10.0.2.2:{serve(lambda path: PAGE)}/"
    fetch = f"import urllib.request; print(urllib.request.urlopen('{url}').read().decode())"

    def work() -> dict[str, Any]:
        def run(command: str) -> str:
            return str(panda.run_serial_cmd(command, timeout=120)).strip()

        found = {
            "machine": run("uname -m"),
            "release": run("uname -r"),
            "notes": run("od -An -v -tx1 /sys/kernel/notes | tr -d ' \\n'"),
            "root": run("id -u"),
            "user": run("su - user -c 'id -u; pwd'").split(),
            "init": run("cat /proc/1/comm"),
            "disk": run("stat -f -c %T /"),
            "proc": run("grep -c MemTotal /proc/meminfo"),
            "python": run("python3 -c 'import json, ssl; print(json.dumps([6 * 7]))'"),
            "coreutils": run("ls --version | head -1"),
            "shell": run("echo $BASH_VERSION"),
            "audit": run("dpkg --audit"),
            "packages": run("dpkg-query -f '${Package} ${Version}\\n' -W").splitlines(),
            # dpkg compares all files with their checksums; what is left out is missing.
            "verify": run("dpkg --verify | grep -v '^missing'"),
            "sources": run("grep -c ^deb /etc/apt/sources.list"),
            "module": run("modprobe overlay && grep -c ^overlay /proc/modules"),
            "page": run(f'python3 -c "{fetch}"'),
            "before": run("echo kept > /root/file; sync; cat /root/file"),
        }
        panda.revert_sync("root")
        found["after"] = run("cat /root/file")
        return found

    result = in_guest(panda, work)
    result["cpu"] = booted.ru_utime + booted.ru_stime
    return dict(result)


def case_start(name: str) -> float:
    """Seconds from nothing to the answer of the first command."""
    begin = time.monotonic()
    panda = boot(name)
    seconds: float = in_guest(
        panda, lambda: [panda.run_serial_cmd("true", timeout=60), time.monotonic() - begin][1]
    )
    return seconds


def case_install(name: str, folder: str) -> list[str]:
    """Install a package that was copied into the guest, use it, and remove it."""
    panda = boot(name)

    def work() -> list[str]:
        panda.copy_to_guest(folder, timeout=60)
        commands = [
            f"dpkg -i ./{Path(folder).name}/toy.deb > /tmp/log 2>&1; tail -n1 /tmp/log",
            "toy",
            "apt-get -qq remove -y toy > /dev/null 2>&1; test -e /usr/bin/toy || echo gone",
        ]
        return [panda.run_serial_cmd(c, timeout=120).strip() for c in commands]

    said: list[str] = in_guest(panda, work)
    return said


def test_first_boot(guest: tuple[str, dict[str, str]]) -> None:
    name, env = guest
    facts: dict[str, Any] = json.loads(
        (Path(env["PANDALITE_GUESTS"]) / name / "manifest.json").read_text()
    )
    found = run_case(case_first, name, env=env, timeout=400)
    _TIMES[name] = [found["cpu"], 0.0]
    assert found["machine"] == facts["run"]["library"]
    assert found["release"] == facts["kernel"]["release"]
    assert facts["kernel"]["build_id"] in found["notes"]
    assert found["root"] == "0"
    assert found["user"] == ["1000", "/home/user"]
    assert found["init"] in ("init", "busybox")
    assert found["disk"] == "ext2/ext3"
    assert found["proc"] == "1"
    assert found["python"] == "[42]"
    assert "GNU coreutils" in found["coreutils"]
    assert found["shell"].startswith("5.")
    assert found["audit"] == ""
    assert found["sources"] == "0"
    assert found["module"] == "1"
    listed = {f"{p['package']} {p['version']}" for p in facts["packages"]}
    kernel = {p for p in listed if p.startswith("linux-image-")}
    assert set(found["packages"]) == listed - kernel
    assert found["verify"] == ""
    assert found["page"] == "from outside"
    assert found["before"] == "kept"
    assert "No such file" in found["after"]
    assert found["cpu"] < LIMIT


def test_again_in_a_new_process(guest: tuple[str, dict[str, str]]) -> None:
    name, env = guest
    assert 1.5 < run_case(case_again, name, env=env)["seconds"] < 10
    seconds = min(run_case(case_start, name, env=env) for _ in range(3))
    _TIMES.setdefault(name, [0.0, 0.0])[1] = seconds
    assert seconds < 5


def test_packages_can_be_installed(guest: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    name, env = guest
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN").chmod(0o755)
    (tree / "DEBIAN" / "control").write_text(
        "Package: toy\nVersion: 1\nArchitecture: all\nMaintainer: nobody\n"
        "Depends: python3\nDescription: toy\n"
    )
    program = tree / "usr" / "bin" / "toy"
    program.parent.mkdir(parents=True)
    program.write_text("#!/usr/bin/python3\nprint('a toy')\n")
    program.chmod(0o755)
    folder = tmp_path / "debs"
    folder.mkdir()
    command = ["dpkg-deb", "--root-owner-group", "-b", str(tree), str(folder / "toy.deb")]
    subprocess.run(command, check=True, capture_output=True)
    said = run_case(case_install, name, str(folder), env=env, timeout=300)
    assert said == ["Setting up toy (1) ...", "a toy", "gone"]


def test_copy_to_guest(guest: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    name, env = guest
    folder = make_tree(tmp_path / "odd näme's", 20_000_000)
    sums = run_case(case_copy, name, str(folder), env=env, timeout=400)
    assert sums == [names_sum(folder), contents_sum(folder)]


def test_power_off(guest: tuple[str, dict[str, str]]) -> None:
    name, env = guest
    assert run_case(case_power_off, name, env=env, timeout=60) is True
