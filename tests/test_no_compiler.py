"""What pandalite does without: a compiler, cffi, third-party packages, other programs.

The demo runs in a process that cannot find or start any of them, with an empty
cache, so that making the guest's snapshot is part of it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 240

#: Run by every Python that is started in the environment of these tests, before
#: anything else. What it forbids it also writes down, in case somebody catches
#: the exception.
GUARD = '''
import importlib.abc
import os
import sys

ALLOWED = {"pandalite", "requests", "tqdm"}
# What requests itself is made of.
ALLOWED |= {"urllib3", "idna", "certifi", "charset_normalizer", "chardet"}
# How the environments of tests come up; no part of what is tested.
ALLOWED |= {"sitecustomize", "usercustomize", "_virtualenv", "_distutils_hack"}

STARTS = {"subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn"}
NEVER = {"os.system", "pty.spawn", "os.startfile", "os.fork", "os.forkpty"}


def note(text):
    descriptor = os.open(os.environ["GUARD_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{text}\\n".encode())
    os.close(descriptor)


class Blocker(importlib.abc.MetaPathFinder):
    """The first to be asked for a module: lets the standard library pass."""

    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in ALLOWED or standard(top):
            return None
        note(f"import {name}")
        raise ModuleNotFoundError(f"{name} is not allowed here", name=name)


def standard(name):
    known = getattr(sys, "stdlib_module_names", None)
    if known is not None:
        return name in known
    # The last are of other systems: os asks for one of them.
    if name in sys.builtin_module_names or name in {"nt", "winreg", "_winapi", "msvcrt"}:
        return True
    library = os.path.dirname(os.__file__)
    places = [library, os.path.join(library, "lib-dynload")]
    return importlib.machinery.PathFinder.find_spec(name, places) is not None


def watch(event, args):
    if event in STARTS:
        program = os.fsdecode(args[0])
        note(f"start {program}")
        if program != sys.executable:
            raise PermissionError(f"{event} of {program} is not allowed here")
    elif event in NEVER:
        note(f"start {event}")
        raise PermissionError(f"{event} is not allowed here")


sys.meta_path.insert(0, Blocker())
sys.addaudithook(watch)
'''


class Bare:
    """An environment without programs, caches and third-party packages."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log"
        for name in ("guard", "programs", "home", "cache"):
            (folder / name).mkdir()
        (folder / "guard" / "sitecustomize.py").write_text(GUARD)
        self.environment = {
            "PATH": str(folder / "programs"),  # an empty directory
            "HOME": str(folder / "home"),
            "PANDALITE_HOME": str(folder / "cache"),
            "PYTHONPATH": os.pathsep.join([str(folder / "guard"), str(ROOT)]),
            "GUARD_LOG": str(self.log),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python in it."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )

    def noted(self) -> list[str]:
        """What the guard saw."""
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def bare(tmp_path: Path) -> Bare:
    """An environment of its own for each test."""
    return Bare(tmp_path)


def test_demo(bare: Bare) -> None:
    done = bare.python("examples/count_blocks.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("Linux debian-x86_64 ")
    assert re.search(r"^[\d,]+ basic blocks$", done.stdout, re.MULTILINE)
    # One process was started, to make the snapshot, and it was Python.
    assert bare.noted() == [f"start {sys.executable}"]


@pytest.mark.parametrize(
    "attempt",
    [
        "import shutil; assert shutil.which('{}') is None",
        "import subprocess; subprocess.run(['{}', '--version'])",
    ],
)
@pytest.mark.parametrize("program", ["cc", "gcc", "clang", "ld", "zig", "qemu-img"])
def test_no_program_is_found(bare: Bare, program: str, attempt: str) -> None:
    done = bare.python("-c", attempt.format(program))
    if "which" in attempt:
        assert done.returncode == 0, done.stderr
    else:
        assert "is not allowed here" in done.stderr
        assert bare.noted() == [f"start {program}"]


@pytest.mark.parametrize("package", ["cffi", "pytest", "pycparser", "elftools", "numpy"])
def test_no_package_is_found(bare: Bare, package: str) -> None:
    done = bare.python("-c", f"import {package}")
    assert done.returncode != 0
    assert f"{package} is not allowed here" in done.stderr
    assert bare.noted() == [f"import {package}"]


def test_run_time_dependencies_are_found(bare: Bare) -> None:
    done = bare.python("-c", "import requests, tqdm, json, ctypes")
    assert done.returncode == 0, done.stderr
    assert not [line for line in bare.noted() if line.startswith("start")]


def test_every_module_imports(bare: Bare) -> None:
    names = [
        ".".join(file.relative_to(ROOT).with_suffix("").parts).replace(".__init__", "")
        for file in (ROOT / "pandalite").rglob("*.py")
        if file.name != "__main__.py"
    ]
    done = bare.python("-c", f"import {', '.join(sorted(names))}")
    assert done.returncode == 0, done.stderr
    # requests looks for a few optional packages and does without them.
    assert not [line for line in bare.noted() if line.startswith("start")]


def test_import_is_lean() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import pandalite"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    imported = set(re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert "pandalite" in imported
    own = {name for name in imported if name.startswith("pandalite.")}
    assert own <= {"pandalite._version"}
    heavy = {"ctypes", "_ctypes", "requests", "tqdm", "urllib3", "threading", "socket"}
    assert not {name for name in imported if name.partition(".")[0] in heavy}


OPENS_NOTHING = """
import os, sys, sysconfig

def libraries():
    with open("/proc/self/maps") as maps:
        return {line.split()[-1] for line in maps if ".so" in line}

before, events = libraries(), []
sys.addaudithook(lambda event, args: events.append((event, args)))
import pandalite
seen = list(events)
# Python's own modules may be extension modules, and those libraries.
standard = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
strange = [f for f in libraries() - before if not f.startswith(standard)]
assert not strange, strange
assert not [args for event, args in seen if event == "ctypes.dlopen"]
own = os.path.dirname(pandalite.__file__)
files = [str(args[0]) for event, args in seen if event == "open"]
files = [f for f in files if not f.startswith(standard)]
assert files
for file in files:
    assert file.startswith(own + os.sep), file
    assert file.endswith((".py", ".pyc")) or ".pyc." in file, file
"""


def test_import_opens_no_library() -> None:
    done = subprocess.run(
        [sys.executable, "-c", OPENS_NOTHING],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
