"""Try a wheel where it has never been: fresh environments, bare Debian systems.

    python tools/try_wheel.py [--wheel FILE] [--only venvs|roots|glib] [--suite SUITE ...]
    python tools/try_wheel.py --prepare DIR [--host MACHINE]
                                               only what `wheel_bare.py all` needs

- A virtual environment with every CPython from 3.9 on that this machine has.
- Minimal Debian systems (debootstrap) of the oldest and the newest suite, with
  python3 and nothing more, entered by chroot without a network: installed from
  files by pip, run by an ordinary user whose home is read-only, but for the cache.
- A system with PyGObject, whose glib is not ours, in the same process.

Times are compared with the bars below; as other programs may take the machine, the
best of three tries counts, and all are printed. The Debian systems need root, and
stay in the build cache.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import host_packages
from debian import KEYRING, ArchiveError, mirror_uri
from project import HOSTS, ROOT, BuildError, cache_dir, digest, locked, native

TOOLS = ROOT / "tools"

#: Seconds, seconds, megabytes.
BARS = {"install": 5.0, "prompt": 15.0, "size": 260.0}
TRIES = 3

#: Debian suite -> further packages, which Pythons to use. The oldest suite with a
#: Python that is new enough, and the newest.
SUITES: dict[str, tuple[list[str], list[str]]] = {
    # pip needs distutils there, which Debian has in a package of its own.
    "bullseye": (["python3-distutils"], ["python3"]),
    "sid": (["python3.13", "python3.15"], ["python3", "python3.13", "python3.15"]),
}
#: The suite that PyGObject is taken from.
GLIB_SUITE = "bookworm"

USER = 1000
TIMEOUT = 600


def run(command: list[str | Path], **options: Any) -> str:
    """Run a command; BuildError with its output if it fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT, check=False, **options
        )
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{command[0]} took more than {TIMEOUT} s: {error}") from error
    if done.returncode:
        words = " ".join(map(str, command))
        raise BuildError(f"{words} failed ({done.returncode}):\n{done.stdout}{done.stderr}")
    return done.stdout


def last_json(text: str) -> dict[str, Any]:
    """The JSON object in the last line of an output."""
    found: dict[str, Any] = json.loads(text.strip().splitlines()[-1])
    return found


def newest_wheel(machine: str) -> Path:
    """The newest wheel in dist for a host architecture."""
    wheels = (ROOT / "dist").glob(f"pandalite-*_{machine}.whl")
    found = sorted(wheels, key=lambda p: p.stat().st_mtime)
    if not found:
        raise BuildError(
            f"there is no wheel for {machine} in dist: `make wheel HOST={machine}` makes it"
        )
    return found[-1]


def wheelhouse(wheel: Path, folder: Path) -> tuple[Path, dict[str, Path]]:
    """All that is installed from, as files; and pip's own wheels.

    The dependencies are those without an ABI, for the oldest Python: they do for all.
    """
    house, tools = folder / "wheels", folder / "pip"
    pure = ["--only-binary=:all:", "--platform", "any", "--implementation", "py", "--abi", "none"]
    get: list[str | Path] = [sys.executable, "-m", "pip", "download", "-q", "--no-input"]
    run([*get, "-d", house, "--python-version", "3.9", *pure, "requests", "tqdm"])
    shutil.copy(wheel, house)
    pips = {}
    for version in ("3.9", "3.13"):
        where = tools / version
        run([*get, "-d", where, "--no-deps", "--python-version", version, *pure, "pip"])
        (pips[version],) = where.glob("pip-*.whl")
    return house, pips


def pip_for(pips: dict[str, Path], version: str) -> Path:
    """The pip for a Python: its newest release wants more than 3.9."""
    return pips["3.9" if version.startswith("3.9") else "3.13"]


def prepare(wheel: Path, folder: Path) -> None:
    """Fill a directory for ``python3 wheel_bare.py all`` in a system without a network."""
    folder.mkdir(parents=True)
    wheelhouse(wheel, folder)
    for name in ("wheel_bare.py", "wheel_smoke.py"):
        shutil.copy(TOOLS / name, folder)


# Environments of this machine's Pythons


def pythons() -> list[tuple[str, Path]]:
    """Every CPython from 3.9 on: its version, and where it is."""
    places = [Path(sys.base_prefix) / "bin" / "python3", *Path("/usr/bin").glob("python3.*[0-9]")]
    places += Path("/usr/local/bin").glob("python3.*[0-9t]")
    for manager in ("~/.pyenv/versions/*/bin/python", "~/.local/share/uv/python/*/bin/python"):
        base, _, pattern = manager.partition("/*")
        places += Path(base).expanduser().glob(f"*{pattern}")
    for minor in range(9, 20):
        if found := shutil.which(f"python3.{minor}"):
            places.append(Path(found))
    code = (
        "import sys, platform, sysconfig; print(platform.python_implementation(), "
        "'.'.join(map(str, sys.version_info[:3])), sysconfig.get_config_var('Py_GIL_DISABLED'),"
        "sys.base_prefix)"
    )
    found_by: dict[tuple[str, str], Path] = {}
    for place in places:
        try:
            done = subprocess.run([place, "-c", code], capture_output=True, text=True, timeout=60)
        except OSError:
            continue
        words = done.stdout.split()
        if len(words) == 4 and words[0] == "CPython":
            version = tuple(map(int, words[1].split(".")))
            if version >= (3, 9):
                free = "t" if words[2] == "1" else ""
                found_by.setdefault((words[1] + free, words[3]), place)
    ordered = sorted(found_by.items(), key=lambda i: tuple(map(int, re.findall(r"\d+", i[0][0]))))
    return [(version, place) for (version, _), place in ordered]


def clean_environment(**more: str) -> dict[str, str]:
    """An environment in which nothing of this checkout is found."""
    unwanted = re.compile(r"PANDALITE_|PANDA_|PYTHON|VIRTUAL_ENV|PIP_")
    kept = {name: value for name, value in os.environ.items() if not unwanted.match(name)}
    return {**kept, **more}


def try_venv(version: str, python: Path, house: Path, pip: Path, scratch: Path) -> dict[str, Any]:
    """Install in a fresh environment of a Python, and run a guest."""
    venv = scratch / f"venv-{version}"
    env = clean_environment(PANDALITE_HOME=str(scratch / "home"), PANDALITE_OFFLINE="1")
    bare = TOOLS / "wheel_bare.py"
    made = last_json(run([python, bare, "install", venv, pip, house], cwd=scratch, env=env))
    smoke = shutil.copy(TOOLS / "wheel_smoke.py", scratch)
    ran = last_json(run([venv / "bin/python", smoke], cwd=scratch, env=env))
    if not ran["place"].startswith(str(venv)):
        raise BuildError(f"the pandalite of {ran['place']} was used, not that of {venv}")
    shutil.rmtree(venv)
    return {**made, **ran}


# Bare Debian systems


def debian_system(suite: str, packages: list[str]) -> Path:
    """A minimal Debian system with some packages in the build cache, made if missing."""
    if os.geteuid() != 0:
        raise BuildError("making a Debian system needs root")
    if not shutil.which("debootstrap") and not host_packages.install(["debootstrap"]):
        raise BuildError("debootstrap is missing: apt-get install debootstrap")
    root = cache_dir() / "roots" / f"{suite}-{digest(' '.join(packages))}"
    with locked(root.with_suffix(".lock")):
        if not root.with_suffix(".complete").exists():
            shutil.rmtree(root, ignore_errors=True)
            print(f"  making a Debian system of {suite} in the build cache", flush=True)
            scripts = Path("/usr/share/debootstrap/scripts")
            run(
                [
                    *("debootstrap", "--variant=minbase", f"--keyring={KEYRING}"),
                    *(f"--include={','.join(packages)}", suite, root, mirror_uri()),
                    # A suite that is newer than debootstrap is made like any other.
                    *([] if (scripts / suite).exists() else [scripts / "sid"]),
                ]
            )
            root.with_suffix(".complete").touch()
    return root


def enter(root: Path, user: int, command: list[str], writable: Path | None = None) -> str:
    """Run a command in a system: no network, its own processes, home read-only."""
    home = root / "home"
    lines = ["set -e", f"mount -t proc proc '{root}/proc'", "ip link set lo up 2>/dev/null || :"]
    if writable is not None:
        cache = home / "user/.cache/pandalite"
        lines += [f"mount --bind '{home}' '{home}'", f"mount -o remount,bind,ro '{home}'"]
        lines += [f"mount --bind '{writable}' '{cache}'"]
    environment = "/usr/bin/env -i PATH=/usr/bin:/bin HOME=/home/user LANG=C.UTF-8"
    lines.append(f"exec chroot --userspec={user}:{user} --groups= '{root}' {environment} \"$@\"")
    isolated = ["unshare", "--net", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child"]
    return run([*isolated, "sh", "-c", "\n".join(lines), "sh", *command], cwd="/")


def populate(root: Path, house: Path, pips: dict[str, Path]) -> None:
    """Put the files to install from, and the demo, into a copy of a system."""
    shutil.copytree(house, root / "opt/wheels")
    for version, pip in pips.items():
        (root / f"opt/pip-{version}").mkdir()
        shutil.copy(pip, root / f"opt/pip-{version}")
    for file in (TOOLS / "wheel_bare.py", TOOLS / "wheel_smoke.py"):
        shutil.copy(file, root / "opt")
    shutil.copy(ROOT / "examples/count_blocks.py", root / "opt/demo.py")
    (root / "home/user/.cache/pandalite").mkdir(parents=True)


def try_root(root: Path, python: str, pips: dict[str, Path], scratch: Path) -> dict[str, Any]:
    """Install and run the demo in a system, with one of its Pythons."""
    code = "import sys; print('.'.join(map(str, sys.version_info[:3])))"
    version = enter(root, 0, [f"/usr/bin/{python}", "-c", code]).strip()
    pip = pip_for(pips, version)
    where = f"/opt/pip-{next(v for v, p in pips.items() if p == pip)}/{pip.name}"
    tries: list[dict[str, Any]] = []
    for number in range(TRIES):
        venv = f"/opt/venv-{version}-{number}"
        words = [f"/usr/bin/{python}", "/opt/wheel_bare.py", "install", venv, where, "/opt/wheels"]
        made = last_json(enter(root, 0, words))
        cache = scratch / f"cache-{root.name}-{version}-{number}"
        cache.mkdir()
        os.chown(cache, USER, USER)
        words = [f"/usr/bin/{python}", "/opt/wheel_bare.py", "demo", venv, "/opt/demo.py"]
        ran = last_json(enter(root, USER, words, writable=cache))
        shutil.rmtree(cache)
        shutil.rmtree(root / venv[1:])
        tries.append({**made, **ran, "python": version})
        if all(tries[-1][name] <= bar for name, bar in BARS.items()):
            break
    best = min(tries, key=lambda t: sum(t[name] > bar for name, bar in BARS.items()))
    return {**best, "tries": [{n: t[n] for n in BARS} for t in tries]}


def try_glib(root: Path, pips: dict[str, Path], scratch: Path) -> dict[str, Any]:
    """Run a guest in a process that uses PyGObject's glib."""
    pip = pips["3.13"]
    venv = "/opt/venv-gi"
    bare = ["/usr/bin/python3", "/opt/wheel_bare.py", "install", venv]
    enter(root, 0, [*bare, f"/opt/pip-3.13/{pip.name}", "/opt/wheels"])
    # The environment sees the system's packages, for gi.
    config = root / venv[1:] / "pyvenv.cfg"
    text = config.read_text()
    config.write_text(text.replace("system-site-packages = false", "system-site-packages = true"))
    cache = scratch / "cache-glib"
    cache.mkdir()
    os.chown(cache, USER, USER)
    words = [f"{venv}/bin/python", "/opt/wheel_smoke.py", "--gi"]
    return last_json(enter(root, USER, words, writable=cache))


def copied(root: Path, scratch: Path) -> Path:
    """A copy of a system to work in."""
    target = scratch / f"root-{root.name}"
    run(["cp", "-a", "--reflink=auto", root, target])
    return target


# The whole


def check_bars(what: str, result: dict[str, Any]) -> Iterator[str]:
    """What took or takes too much."""
    for name, bar in BARS.items():
        if name in result and result[name] > bar:
            yield f"{what}: {name} is {result[name]}, more than {bar:g}"


def everything(given: argparse.Namespace) -> Iterator[str]:
    """Do what is asked for; yields what is wrong."""
    wheel = given.wheel or newest_wheel(native())
    print(f"{wheel.name}", flush=True)
    with tempfile.TemporaryDirectory(prefix="pandalite-try-") as folder:
        scratch = Path(folder)
        scratch.chmod(0o755)
        house, pips = wheelhouse(wheel, scratch)
        if given.only in (None, "venvs"):
            for version, python in pythons():
                got = try_venv(version, python, house, pip_for(pips, version), scratch)
                print(
                    f"  Python {version:8} {python}: installed in {got['install']:.1f} s, "
                    f"{got['size']:.0f} MB; {got['cores']} libraries, {got['blocks']:,} blocks",
                    flush=True,
                )
                # The first environment reads everything from the disk for the first time.
                yield from check_bars(f"Python {version}", {"size": got["size"]})
        if given.only in (None, "roots"):
            for suite in given.suite or SUITES:
                yield from _suite(suite, house, pips, scratch)
        if given.only in (None, "glib"):
            root = copied(debian_system(GLIB_SUITE, ["python3", "python3-gi"]), scratch)
            populate(root, house, pips)
            got = try_glib(root, pips, scratch)
            print(f"  with PyGObject's glib in the process, {GLIB_SUITE}: {got['blocks']:,} blocks")


def _suite(suite: str, house: Path, pips: dict[str, Path], scratch: Path) -> Iterator[str]:
    packages, names = SUITES.get(suite, ([], ["python3"]))
    root = copied(debian_system(suite, ["python3", *packages]), scratch)
    populate(root, house, pips)
    libc = enter(root, 0, ["/usr/bin/ldd", "--version"]).splitlines()[0].split()[-1]
    for name in names:
        start = time.monotonic()
        got = try_root(root, name, pips, scratch)
        print(
            f"  Debian {suite}, glibc {libc}, Python {got['python']}: installed in "
            f"{got['install']:.1f} s, {got['size']:.0f} MB; guest prompt {got['prompt']:.1f} s "
            f"after that; tries: {got['tries']} ({time.monotonic() - start:.0f} s)",
            flush=True,
        )
        yield from check_bars(f"Debian {suite}, {name}", got)
    shutil.rmtree(root)


def main() -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--wheel", type=Path, help="default: the one in dist")
    parser.add_argument("--only", choices=["venvs", "roots", "glib"])
    parser.add_argument("--suite", action="append", help=f"default: {', '.join(SUITES)}")
    parser.add_argument("--prepare", type=Path, metavar="DIR", help="only fill this directory")
    parser.add_argument("--host", choices=HOSTS, help="with --prepare: for which machines")
    given = parser.parse_args()
    try:
        if given.prepare:
            prepare(given.wheel or newest_wheel(given.host or native()), given.prepare)
            return 0
        found = list(everything(given))
    except (BuildError, ArchiveError) as error:
        found = [str(error)]
    for line in found:
        print(f"try_wheel: {line}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
