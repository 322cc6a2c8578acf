"""Boot a guest to its prompt and save the machine: run by ``tiny.root_image``.

``python -m pandalite.qcows.make_root REQUEST``, where REQUEST is a JSON object
with arch, library, qcow, mem, prompt, extra_args, snapshot and timeout. Ends
with status 0 when the snapshot is in the image, else with 1 and the reason on
standard error.

A process of its own, because the core library can run one machine per
process, and because a guest that goes wrong must not take the caller along.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

from ..errors import PandaError, SnapshotError, TimeoutExpired


def make_root(request: dict[str, Any]) -> None:
    """Do what the request says; an exception of pandalite when it cannot be done."""
    from .. import Panda
    from . import qcow2

    panda = Panda(
        arch=request["arch"],
        mem=request["mem"],
        qcow=request["qcow"],
        expect_prompt=request["prompt"],
        libpanda_path=request["library"],
        extra_args=request["extra_args"],
    )

    @panda.queue_blocking
    def save() -> None:
        try:
            assert panda.serial_console is not None  # as a prompt was given
            panda.serial_console.expect(timeout=request["timeout"])
            answer = panda.run_monitor_cmd(f"savevm {request['snapshot']}")
            if answer and answer.strip():
                raise SnapshotError(f"savevm said: {answer.strip()}")
        finally:
            panda.end_analysis()

    panda.run()
    if not any(s.name == request["snapshot"] for s in qcow2.list_snapshots(request["qcow"])):
        raise SnapshotError("the guest ended before its snapshot was saved")


def _die_with_parent() -> None:
    """Have the kernel kill this process when the one that waits for it is killed."""
    import ctypes

    pr_set_pdeathsig = 1
    parent = os.getppid()
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it was killed before the call
        os._exit(1)


def main(arguments: list[str]) -> int:
    """The command; returns the exit status."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    _die_with_parent()
    try:
        make_root(json.loads(arguments[0]))
    except TimeoutExpired as error:
        print(f"the guest did not reach its prompt: {error}", file=sys.stderr)
        return 1
    except PandaError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
