"""QEMU gives up in the CPU thread while the main thread waits for it."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

import pytest
from guest import boot, run_case

from pandalite import GuestCoreError, PandaError


def case_death(recorded: bool, path: str) -> list[Any]:
    panda = boot()
    waits = threading.Event()
    found: list[Any] = []

    @panda.cb_before_handle_interrupt(enabled=False)
    def interrupt(cpu: Any, number: int) -> int:
        if not panda.in_kernel(cpu):
            waits.set()
            # The main thread comes to wait for the CPU to stop.
            time.sleep(1)
            # QEMU cannot find the kernel's stack then.
            cpu.env_ptr.tr.flags = 0
        return number

    @panda.queue_blocking
    def work() -> None:
        panda.revert_sync("root")
        if recorded:
            panda.record(path)
        panda.enable_callback("interrupt")
        panda.run_serial_cmd("while :; do :; done", timeout=100)

    def stop() -> None:
        waits.wait(60)
        with contextlib.suppress(PandaError):
            if recorded:
                panda.end_record()
            else:
                panda.record(path)

    threading.Thread(target=stop, daemon=True).start()
    began = time.monotonic()
    try:
        panda.run()
    except GuestCoreError as error:
        found.append(str(error))
    return [*found, time.monotonic() - began]


@pytest.mark.parametrize("recorded", [False, True])
def test_death_while_waited_for(recorded: bool, tmp_path: Any) -> None:
    said, seconds = run_case(case_death, recorded, str(tmp_path / "x"))
    assert "QEMU called abort()" in said
    assert seconds < 60
