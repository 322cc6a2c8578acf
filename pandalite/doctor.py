"""The command ``python -m pandalite doctor``: does pandalite work on this machine?

Each check says what it found; one that fails also says what to do. What may crash
or hang (loading a damaged library, running code) is done in a child process.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import hashlib
import json
import mmap
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from . import __version__
from ._bindings import loader
from ._bindings.arches import ARCHITECTURES
from .errors import PandaError

__all__ = ["CHECKS", "FAILED", "OK", "WARNING", "Result", "main", "run_checks"]

OK, WARNING, FAILED = "ok", "warning", "FAILED"

#: What the core libraries are built for.
HOSTS = ("x86_64", "aarch64")
GLIBC = (2, 28)

#: Bytes that making the snapshot of a tiny guest may take in the cache.
SPACE = 300 << 20

#: Seconds for a library to load, and for the self-test; both take a fraction of it.
LOAD_TIMEOUT = 60.0
TEST_TIMEOUT = 60.0

#: Bytes of address space below which QEMU cannot have its code cache.
ADDRESS_SPACE = 4 << 30

#: QEMU's option to have two mappings of the translated code.
SPLIT = "-accel tcg,thread=single,split-wx=on"

_PACKAGE = Path(__file__).resolve().parent
_REINSTALL = "install pandalite again: pip install --force-reinstall --no-deps pandalite"


class Result(NamedTuple):
    """What a check found. ``remedy`` says what to do, unless all is well."""

    name: str
    status: str
    text: str
    remedy: str = ""


def check_platform() -> Result:
    """Operating system, processor, Python."""
    name = "platform"
    machine = platform.machine()
    text = (
        f"{platform.system()} {platform.release()} on {machine}, Python {platform.python_version()}"
    )
    if platform.system() != "Linux" or machine not in HOSTS:
        return Result(
            name,
            FAILED,
            text,
            f"pandalite runs on Linux on {', '.join(HOSTS)}: use such a machine, virtual or real",
        )
    if sys.maxsize < 1 << 32:
        return Result(name, FAILED, f"{text}, 32 bits", "use a 64-bit Python")
    return Result(name, OK, text)


def check_glibc() -> Result:
    """The C library the core libraries are linked with."""
    name = "C library"
    try:
        said = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):  # another C library does not know the name
        said = ""
    found = re.fullmatch(r"glibc (\d+)\.(\d+).*", said)
    needed = ".".join(map(str, GLIBC))
    if not found:
        return Result(
            name,
            FAILED,
            "this Python does not use glibc",
            f"use a Python that is linked with glibc {needed} or newer; Alpine Linux has musl: "
            "take an image of Debian, Ubuntu or Fedora",
        )
    if (int(found[1]), int(found[2])) < GLIBC:
        return Result(
            name,
            FAILED,
            f"{said} is too old",
            f"use a system with glibc {needed} or newer: Debian 10, Ubuntu 20.04, RHEL 8",
        )
    return Result(name, OK, f"{said} (at least {needed} is needed)")


# Memory for code


def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return libc


def _writable_code() -> int:
    """Try what QEMU does for translated code; the errno, 0 if it is allowed."""
    libc = _libc()
    size = mmap.PAGESIZE
    access = mmap.PROT_READ | mmap.PROT_WRITE
    place = libc.mmap(None, size, access, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    if place in (None, ctypes.c_void_p(-1).value):
        return ctypes.get_errno()
    refused = libc.mprotect(place, size, access | mmap.PROT_EXEC)
    error = ctypes.get_errno() if refused else 0
    libc.munmap(place, size)
    return error


def _two_mappings() -> bool:
    """Whether the same memory may be mapped twice, to be written here and executed there."""
    try:
        handle = os.memfd_create("pandalite-doctor")
    except (OSError, AttributeError):
        return False
    try:
        os.ftruncate(handle, mmap.PAGESIZE)
        mmap.mmap(handle, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_EXEC).close()
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def _who_refuses() -> tuple[str, str]:
    """The likely reason that code may not be written, and what to do."""
    pr_get_mdwe = 66
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        status = ""
    if ctypes.CDLL(None).prctl(pr_get_mdwe, 0, 0, 0, 0) > 0:
        return (
            "the process was started so that memory is never writable and executable",
            "with systemd, set MemoryDenyWriteExecute=no in the service's unit",
        )
    try:
        enforcing = Path("/sys/fs/selinux/enforce").read_text().strip() == "1"
    except OSError:
        enforcing = False
    if enforcing:
        return (
            "SELinux is enforcing",
            "allow it with `setsebool -P deny_execmem off` (as root), or run in a domain that has "
            "the permission execmem; `ausearch -m avc -ts recent` shows what was denied",
        )
    if re.search(r"^PaX:\s*\S*M", status, re.MULTILINE):
        return (
            "this kernel's PaX forbids it (MPROTECT)",
            f"exempt the interpreter, as root: paxctl -m {os.path.realpath(sys.executable)}",
        )
    if re.search(r"^Seccomp:\s*2", status, re.MULTILINE):
        return (
            "the process has a seccomp filter, of a container or a sandbox",
            "run the container with a profile that allows mprotect with PROT_EXEC (the default "
            "ones of Docker and Podman do), or outside of the sandbox",
        )
    return (
        "the kernel does not say why",
        "look for a security module or a hardened kernel that forbids executable memory",
    )


def check_code_memory() -> Result:
    """Memory that is written and executed: QEMU puts the translated code there."""
    name = "code memory"
    error = _writable_code()
    if not error:
        return Result(name, OK, "translated code can be written and executed")
    reason, remedy = _who_refuses()
    if _two_mappings():
        # Not for generic=, whose snapshot is made with the usual arguments.
        remedy += f"; or, without generic=, give extra_args={SPLIT!r}, which does without"
    return Result(
        name,
        FAILED,
        f"memory may not be both written and executed ({os.strerror(error)}): {reason}",
        remedy,
    )


def check_limits() -> Result:
    """Limits of the process."""
    import resource

    name = "limits"
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft not in (-1, resource.RLIM_INFINITY) and soft < ADDRESS_SPACE:
        return Result(
            name,
            FAILED,
            f"the address space is limited to {soft >> 20} MB",
            "raise it: `ulimit -v unlimited` in the shell before Python is started",
        )
    return Result(name, OK, "the address space is not limited too tightly")


# What is installed


def _child(code: str, timeout: float) -> tuple[int, str]:
    """Run code in a Python of its own; its status and the last it said."""
    env = {**os.environ, "PYTHONPATH": _search_path(), "PYTHONFAULTHANDLER": "0"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        return -signal.SIGALRM, f"it took more than {timeout:.0f} s"
    except OSError as error:
        return 1, f"no process can be started: {error}"
    lines = (done.stdout.strip() if done.returncode == 0 else done.stderr.strip()).splitlines()
    return done.returncode, lines[-1] if lines else ""


def _search_path() -> str:
    """A PYTHONPATH with which a child finds the same package."""
    given = os.environ.get("PYTHONPATH")
    return os.pathsep.join([str(_PACKAGE.parent), *([given] if given else [])])


def _says(status: int, text: str) -> str:
    """A child's end in words."""
    if status < 0 and status != -signal.SIGALRM:
        try:
            return f"the process was ended by {signal.Signals(-status).name}"
        except ValueError:
            return f"the process was ended by signal {-status}"
    return text or f"status {status}"


def check_files() -> Result:
    """The files of the installed package are those of the wheel."""
    from base64 import urlsafe_b64encode
    from importlib import metadata

    name = "files"
    try:
        files = metadata.distribution("pandalite").files or []
    except metadata.PackageNotFoundError:
        files = []
    ours = [f for f in files if f.parts[0] == "pandalite" and f.hash]
    here = [f for f in ours if Path(str(f.locate())).resolve() == Path(__file__).resolve()]
    if not here:
        return Result(name, OK, f"pandalite {__version__} in {_PACKAGE}, not from a wheel")
    wrong = []
    for file in ours:
        assert file.hash is not None
        try:
            data = Path(str(file.locate())).read_bytes()
        except OSError as error:
            wrong.append(f"{file}: {error.strerror}")
            continue
        total = urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        if total != file.hash.value:
            wrong.append(f"{file} is not what was installed")
    if wrong:
        return Result(name, FAILED, _some(wrong), _REINSTALL)
    return Result(
        name, OK, f"pandalite {__version__} in {_PACKAGE}, {len(ours)} files as installed"
    )


def check_libraries() -> Result:
    """Every core library can be loaded."""
    name = "libraries"
    given = [v for v in ("PANDALITE_LIB", "PANDA_LIB") if os.environ.get(v)]
    where = f"{given[0]}={os.environ[given[0]]}" if given else str(loader.LIBRARY_DIR)
    missing, bad = [], []
    for arch in ARCHITECTURES:
        try:
            file = loader.find_library(arch)
        except PandaError:
            missing.append(arch)
            continue
        code = (
            "import sys\n"
            "from pandalite._bindings import loader\n"
            "from pandalite.errors import PandaError\n"
            f"try: loader.load({arch!r}, {str(file)!r})\n"
            "except PandaError as error: sys.exit(' '.join(str(error).split()))\n"
        )
        status, text = _child(code, LOAD_TIMEOUT)
        if status:
            bad.append((file, _says(status, text)))
    if given and not missing and not bad:
        return Result(name, OK, f"all {len(ARCHITECTURES)} can be loaded, from {where}")
    if bad:
        file, text = bad[0]
        others = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        return Result(name, FAILED, f"{file} cannot be loaded: {text}{others}", _cure(file, text))
    if len(missing) == len(ARCHITECTURES):
        return Result(name, FAILED, f"there are no core libraries in {where}", _get(given))
    if missing:
        # With PANDALITE_LIB, or in a checkout, somebody may want only some.
        text = f"{where} has none for {', '.join(missing)}"
        return Result(name, WARNING if given or _checkout() else FAILED, text, _get(given))
    return Result(name, OK, f"all {len(ARCHITECTURES)} can be loaded")


def _checkout() -> bool:
    return (_PACKAGE.parent / "csrc").is_dir()


def _get(given: list[str]) -> str:
    if given:
        return f"unset {given[0]}, or let it name a directory that has them"
    return "`make core` builds them in this checkout" if _checkout() else _REINSTALL


def _cure(file: Path, text: str) -> str:
    """What to do about a library that cannot be loaded."""
    try:
        noexec = bool(os.statvfs(file).f_flag & os.ST_NOEXEC)
    except OSError:
        noexec = False
    if noexec or "failed to map segment" in text or "Operation not permitted" in text:
        return (
            f"the file system of {file.parent} is mounted noexec, or executable files are "
            "forbidden there: install pandalite in an environment on another file system"
        )
    return _get([])


def check_firmware() -> Result:
    """The firmware's files are whole."""
    name = "firmware"
    folder = loader.LIBRARY_DIR / "firmware"
    remedy = "`make firmware` collects it in this checkout" if _checkout() else _REINSTALL
    try:
        records = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        facts = {r["file"]: r["sha256"] for r in records}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Result(name, FAILED, f"{folder} has no firmware: {error}", remedy)
    wrong = _damaged(folder, facts)
    if wrong:
        return Result(name, FAILED, _some(wrong), remedy)
    return Result(name, OK, f"{len(facts)} files in {folder}")


def check_guest() -> Result:
    """The guest that comes with the package is whole."""
    from .qcows import tiny

    name = "guest"
    remedy = "`make guests` builds it in this checkout" if _checkout() else _REINSTALL
    try:
        guest = tiny.find_guest("x86_64")
    except PandaError as error:
        return Result(name, FAILED, str(error), remedy)
    facts = {n: f["sha256"] for n, f in guest.manifest["files"].items()}
    wrong = _damaged(guest.directory, facts)
    if wrong:
        return Result(name, FAILED, _some(wrong), remedy)
    return Result(name, OK, f"Linux {guest.release} in {guest.directory}")


def _damaged(folder: Path, facts: dict[str, str]) -> list[str]:
    wrong = []
    for file, expected in facts.items():
        try:
            data = (folder / file).read_bytes()
        except OSError as error:
            wrong.append(f"{folder / file}: {error.strerror}")
            continue
        if hashlib.sha256(data).hexdigest() != expected:
            wrong.append(f"{folder / file} is damaged")
    return wrong


# The cache


def check_cache() -> Result:
    """The cache directory can be written, locked, and has room."""
    from .qcows import cache

    name = "cache"
    home = cache.home()
    other = "set PANDALITE_HOME to a directory on a local disk that can be written"
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=home, prefix=".doctor-") as file:
            free = os.statvfs(home).f_bavail * os.statvfs(home).f_frsize
            if free < SPACE:
                return _full(home, free)
            # Quotas show only when something is written.
            file.write(b"\1" * (1 << 20))
            file.flush()
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        text = f"{error.filename or home}: {error.strerror}"
        return Result(name, FAILED, f"{home} cannot be used: {text}", other)
    return Result(name, OK, f"{home}, {free / 1e9:.1f} GB free")


def _full(home: Path, free: int) -> Result:
    return Result(
        "cache",
        FAILED,
        f"{home} has {free / 1e6:.0f} MB free; {SPACE / 1e6:.0f} MB may be needed for a guest",
        "delete what is not used with `python -m pandalite.qcows gc --max-size 1G`, or set "
        "PANDALITE_HOME to a directory with more room",
    )


# The self-test

#: mov ecx, 1000000; again: inc rax; dec ecx; jnz again
_CODE = bytes.fromhex("b940420f0048ffc0ffc975f9")
_LOOPS = 1_000_000


def self_test() -> None:
    """Run machine code and, if its snapshot is made, the guest; prints what it did.

    In a process of its own each, as there is one machine per process.
    """
    from . import Panda

    start = time.monotonic()
    # Any: the decorators of callbacks are made when they are asked for.
    panda: Any = Panda("x86_64", extra_args="-M configurable -nographic")
    blocks = [0]

    def setup(cpu: Any) -> None:
        panda.map_memory("code", 0x1000, 0x400000)
        panda.physical_memory_write(0x400000, _CODE)
        panda.arch.set_reg(cpu, "RAX", 0)
        panda.arch.set_pc(cpu, 0x400000)

    def count(cpu: Any, tb: Any) -> None:
        blocks[0] += 1

    panda.cb_after_machine_init(setup)
    panda.cb_before_block_exec(count)
    panda.run_until(address=0x400000 + len(_CODE), timeout=20)
    value = panda.arch.get_reg(panda.get_cpu(), "RAX")
    if value != _LOOPS or blocks[0] < _LOOPS:
        sys.exit(f"machine code gave {value}, not {_LOOPS}, in {blocks[0]} blocks")
    took = time.monotonic() - start
    print(f"{blocks[0]:,} blocks with a callback each in {took:.1f} s")


def guest_test() -> None:
    """Run a command in the tiny guest; makes its snapshot if there is none."""
    from . import Panda

    start = time.monotonic()
    panda = Panda(generic="x86_64")
    said: list[str] = []

    @panda.queue_blocking
    def work() -> None:
        panda.revert_sync("root")
        said.append(str(panda.run_serial_cmd("uname -r")))
        panda.end_analysis()

    panda.run()
    print(f"the guest answered {said[0]!r} after {time.monotonic() - start:.1f} s")


def check_self_test(boot: bool = False) -> Result:
    """Run code, and the guest if that does not take long."""
    from .qcows import tiny

    name = "self-test"
    report = "report it with this output and the log of `dmesg`; PANDALITE_HOME may be deleted"
    status, text = _child("from pandalite.doctor import self_test as test; test()", TEST_TIMEOUT)
    if status:
        return Result(name, FAILED, f"machine code does not run: {_says(status, text)}", report)
    done = text
    try:
        guest = tiny.find_guest("x86_64")
        made = tiny.root_path(guest, loader.find_library(guest.library)).exists()
    except (PandaError, OSError) as error:
        return Result(name, WARNING, f"{done}; the guest was not tried: {error}", _REINSTALL)
    if not made and not boot:
        note = "the guest was not tried: its first start takes some 7 s (doctor --boot)"
        return Result(name, OK, f"{done}; {note}")
    timeout = tiny.BOOT_TIMEOUT + TEST_TIMEOUT
    status, text = _child("from pandalite.doctor import guest_test as test; test()", timeout)
    if status:
        return Result(name, FAILED, f"the guest does not run: {_says(status, text)}", report)
    return Result(name, OK, f"{done}; {text}")


def _some(lines: list[str]) -> str:
    more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
    return lines[0] + more


#: In the order in which they are run.
CHECKS: tuple[Callable[[], Result], ...] = (
    *(check_platform, check_glibc, check_code_memory, check_limits, check_files),
    *(check_libraries, check_firmware, check_guest, check_cache, check_self_test),
)

#: Without these nothing can run: the self-test is left out when one fails.
_GROUND = {"platform", "C library", "code memory", "limits", "libraries", "guest", "cache"}


def run_checks(boot: bool = False, show: Callable[[Result], None] | None = None) -> list[Result]:
    """Run all checks; ``show`` gets each result as soon as it is there."""
    results: list[Result] = []
    for check in CHECKS:
        failed = [r.name for r in results if r.status == FAILED and r.name in _GROUND]
        if check is check_self_test and failed:
            text = f"not run, because of: {', '.join(failed)}"
            result = Result("self-test", WARNING, text, "do what is said above first")
        else:
            result = check_self_test(boot) if check is check_self_test else check()
        results.append(result)
        if show is not None:
            show(result)
    return results


def _show(result: Result) -> None:
    print(f"{result.status:8} {result.name:12} {result.text}", flush=True)
    if result.status != OK:
        print(f"{'':8} {'':12} -> {result.remedy}", flush=True)


def main(arguments: Sequence[str]) -> int:
    """The command; returns the exit status: 0, 1 if a check failed, 2 for wrong usage."""
    parser = argparse.ArgumentParser(
        prog="python -m pandalite doctor",
        description="Check whether pandalite works on this machine, and say what to do if not.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--boot", action="store_true", help="start the guest even if its snapshot has to be made"
    )
    try:
        given = parser.parse_args(list(arguments))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 2
    results = run_checks(given.boot, None if given.json else _show)
    failed = [r for r in results if r.status == FAILED]
    if given.json:
        print(json.dumps([r._asdict() for r in results], indent=1))
    elif failed:
        print(f"{len(failed)} of {len(results)} checks failed")
    else:
        print("pandalite works here")
    return 1 if failed else 0
