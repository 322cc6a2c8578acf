"""The guest's clock stands still while callbacks run."""

from __future__ import annotations

import time

import pytest
from guest import boot, in_guest, run_case


def case_clock(arch):
    panda = boot(arch)
    events = [0]

    @panda.cb_before_block_exec(enabled=False)
    def slow(cpu, tb):
        events[0] += 1
        end = time.perf_counter() + 20e-6
        while time.perf_counter() < end:
            pass

    @panda.cb_before_block_exec(enabled=False)
    def nap(cpu, tb):
        panda.disable_callback("nap")
        time.sleep(1)

    def uptime():
        return float(panda.run_serial_cmd("cat /proc/uptime", timeout=120).split()[0])

    def measure(work):
        guest, host = uptime(), time.monotonic()
        work()
        return uptime() - guest, time.monotonic() - host

    def instrumented():
        panda.enable_callback("slow")
        panda.run_serial_cmd("echo", timeout=120)
        panda.disable_callback("slow")

    def waiting():
        panda.enable_callback("nap")
        panda.run_serial_cmd("echo")

    def work():
        return {
            "slow": measure(instrumented),
            "nap": measure(waiting),
            "plain": measure(lambda: panda.run_serial_cmd("sleep 1")),
            "after revert": measure_after_revert(),
        }

    def measure_after_revert():
        panda.revert_sync("root")
        return measure(lambda: panda.run_serial_cmd("sleep 1"))

    return {"events": events, **in_guest(panda, work)}


@pytest.mark.parametrize("arch", ["x86_64", "i386"])
def test_clock(arch):
    result = run_case(case_clock, arch)
    guest, host = result["slow"]
    spent = result["events"][0] * 20e-6
    assert host > spent > 0.1
    # The guest sees what the host took beside the callbacks, not their time.
    assert 0 < guest < host - 0.8 * spent
    # A callback that waits is not hidden from the guest for long.
    guest, host = result["nap"]
    assert host > 1
    assert 0.8 < guest < host
    for name in ("plain", "after revert"):
        guest, host = result[name]
        assert 0.95 < guest < host + 0.1
        assert guest > host / 2
