"""Run a test case in a process of its own: there is one machine per process.

A case is a function without arguments at the top of a test module. It creates
its Panda and returns something JSON can hold, which `run_case` returns::

    def case_uname():
        panda = boot()
        ...
        return output

    def test_uname():
        assert "Linux" in run_case(case_uname)

An exception in the case fails the test with the child's traceback. A case that
is expected to raise out of `panda.run()` catches it itself.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

#: Seconds a case may take. Far more than any needs: the machine may be busy.
TIMEOUT = 180

#: How many times as long all may take: what runs the tests is emulated.
SLOWER = int(os.environ.get("TESTS_SLOWER", "1"))

_MARK = "\n@@result@@"
_NOT_BUILT = "\n@@not built@@"

#: Guests that the tests' own set-up builds: without them tests fail.
ALWAYS = ("x86_64", "i386", "arm", "aarch64")


def built(arch: str) -> str:
    """The architecture; skips the test if its tiny guest is not built."""
    import pytest

    if not _is_built(arch):
        pytest.skip(f"{arch} is not built: python tools/build_guest.py {arch}")
    return arch


def _is_built(arch: str) -> bool:
    return (ROOT / "pandalite" / "_lib" / "guests" / arch).exists()


def boot(arch: str = "x86_64", **kwargs: Any) -> Any:
    """A Panda with the tiny guest of an architecture; its test is skipped without one."""
    from pandalite import Panda

    if arch not in ALWAYS and not _is_built(arch):
        print(_NOT_BUILT + arch, flush=True)
        sys.exit(1)

    return Panda(generic=arch, **kwargs)


def in_guest(panda: Any, work: Callable[[], Any]) -> Any:
    """Run `work` in the async thread from the root snapshot on; return its result."""
    results = []

    @panda.queue_blocking
    def body() -> None:
        panda.revert_sync("root")
        results.append(work())
        panda.end_analysis()

    panda.run()
    return results[0]


def run_case(
    case: Callable[..., Any],
    *args: Any,
    timeout: float = TIMEOUT,
    env: dict[str, str] | None = None,
) -> Any:
    """Run a case in a child process and return its result."""
    done = run_case_process(case, *args, timeout=timeout, env=env)
    if done.returncode and _NOT_BUILT in done.stdout:
        built(done.stdout.rsplit(_NOT_BUILT, 1)[1].strip())
    if done.returncode or _MARK not in done.stdout:
        raise AssertionError(
            f"{case.__name__}{args} ended with status {done.returncode}\n"
            f"--- stdout\n{done.stdout[-3000:]}\n--- stderr\n{done.stderr[-6000:]}"
        )
    return json.loads(done.stdout.rsplit(_MARK, 1)[1])


def run_case_process(
    case: Callable[..., Any],
    *args: Any,
    timeout: float = TIMEOUT,
    env: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a case in a child process; for cases that look at the process itself."""
    return subprocess.run(
        case_command(case, *args),
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout * SLOWER,
    )


def case_command(case: Callable[..., Any], *args: Any) -> list[str]:
    """The command that runs a case, for tests that drive the child themselves."""
    module = sys.modules[case.__module__]
    assert module.__file__ is not None
    return [sys.executable, "-u", __file__, module.__file__, case.__name__, json.dumps(args)]


def _child() -> None:
    import importlib.util

    # A test run in the background of a shell inherits that Ctrl-C is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.path.insert(0, str(ROOT))
    sys.path.insert(0, str(Path(__file__).parent))
    file, name, args = sys.argv[1:]
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    result = getattr(module, name)(*json.loads(args))
    print(_MARK + json.dumps(result), flush=True)


if __name__ == "__main__":
    _child()
