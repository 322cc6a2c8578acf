"""Create, run, stop, run again, finish; and what may happen in between."""

from __future__ import annotations

import os
import threading
import time

from guest import boot, in_guest, run_case, run_case_process

from pandalite import GuestPanic, GuestReset, GuestShutdown, StateError


def case_ways_to_stop():
    """run() ends from everywhere, and runs again."""
    panda = boot()
    done = {}

    def timed(name):
        start = time.monotonic()
        panda.run()
        done[name] = time.monotonic() - start

    # From a callback on the CPU thread.
    panda.cb_before_block_exec(lambda cpu, tb: panda.end_analysis(), name="stop")
    timed("callback")
    # Callbacks are gone after a run.
    assert panda.registered_callbacks == {}

    # From the main loop.
    panda.cb_main_loop_wait(lambda: panda.end_analysis(), name="stop")
    timed("main loop")

    # From a thread of the user's.
    threading.Thread(target=lambda: (panda.running.wait(), panda.end_analysis())).start()
    timed("thread")

    # From a queued function, and stop_run.
    @panda.queue_blocking
    def work():
        panda.end_analysis()

    timed("queued")

    @panda.queue_blocking
    def stop():
        panda.stop_run()

    timed("stop_run")

    # While a queued function sleeps: it is left behind.
    @panda.queue_blocking
    def sleeper():
        threading.Timer(0.3, panda.end_analysis).start()
        time.sleep(1000)

    timed("sleeping")

    # The machine has gone on all the time.
    output = in_guest(panda, lambda: panda.run_serial_cmd("echo $((6 * 7))"))
    try:
        panda.end_analysis()
    except StateError as error:
        done["after"] = str(error)
    return {"done": done, "output": output, "threads": [t.name for t in threading.enumerate()]}


def test_ways_to_stop():
    result = run_case(case_ways_to_stop)
    after = result["done"].pop("after")
    assert "nothing to end" in after
    assert set(result["done"]) == {
        "callback", "main loop", "thread", "queued", "stop_run", "sleeping",
    }  # fmt: skip
    # The first one creates the machine; the last one waits for the sleeper.
    assert all(seconds < 5 for seconds in result["done"].values()), result["done"]
    assert result["output"] == "42"


def case_controls():
    """vm_stop, cont, reset, functions in the main loop."""
    panda = boot()
    found = {}

    def work():
        panda.vm_stop()
        found["stopped"] = panda.run_monitor_cmd("info status")
        panda.cont()
        found["running"] = panda.run_monitor_cmd("info status")
        called = threading.Event()
        names = []

        def in_main(number, word):
            names.append(threading.current_thread() is threading.main_thread())
            names.append([number, word])
            called.set()

        panda.queue_main_loop_wait_fn(in_main, [5, "five"])
        called.wait(10)
        found["main"] = names
        internal = threading.Event()

        def other():
            internal.set()

        panda.queue_async(other, internal=True)
        found["internal"] = internal.wait(10)
        panda.run_serial_cmd("echo before > /tmp/file")
        panda.reset()
        panda.serial_console.expect(timeout=120)
        found["after reset"] = panda.run_serial_cmd("cat /tmp/file 2>/dev/null; echo $((6 * 7))")
        return None

    in_guest(panda, work)
    found["aborted"] = panda.was_aborted()
    return found


def test_controls():
    found = run_case(case_controls)
    assert "paused" in found["stopped"]
    assert "running" in found["running"]
    assert found["main"] == [True, [5, "five"]]
    assert found["internal"] is True
    assert found["after reset"] == "42"
    assert found["aborted"] is False


def case_one_per_process():
    from pandalite import Panda

    found = {}
    panda = Panda(generic="x86_64")
    try:
        Panda(arch="i386")
    except StateError as error:
        found["second"] = str(error)
    output = in_guest(panda, lambda: panda.run_serial_cmd("echo alive"))

    # fork: the child can use nothing, and leaves the parent's machine alone.
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        said = []
        for call in (
            panda.run,
            panda.end_analysis,
            lambda: panda.physical_memory_read(0, 4),
            lambda: panda.queue_async(lambda: None),
        ):
            try:
                call()
                said.append("nothing")
            except StateError as error:
                said.append("fork" in str(error))
        os.write(writer, repr(said).encode())
        os._exit(0)
    os.waitpid(child, 0)
    found["child"] = os.read(reader, 1000).decode()
    found["output"] = [output, in_guest(panda, lambda: panda.run_serial_cmd("echo alive"))]

    # Another thread is not the machine's main thread.
    raised = []

    def elsewhere():
        try:
            panda.run()
        except StateError as error:
            raised.append(str(error))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    found["thread"] = raised
    found["finish"] = [panda.panda_finish(), panda.panda_finish()]
    try:
        panda.run()
    except StateError as error:
        found["finished"] = str(error)
    return found


def test_one_per_process():
    found = run_case(case_one_per_process)
    assert "new process" in found["second"]
    assert found["child"] == "[True, True, True, True]"
    assert found["output"] == ["alive", "alive"]
    assert len(found["thread"]) == 1 and "thread" in found["thread"][0]
    assert found["finish"] == [0, 0]
    assert "new process" in found["finished"]


def case_guest_ends_it():
    """The guest panics, powers off, reboots: the exception says what happened."""
    panda = boot(extra_args="-no-reboot")
    found = {}

    def attempt(command):
        @panda.queue_blocking
        def work():
            panda.revert_sync("root")
            panda.run_serial_cmd(command, timeout=60)

        try:
            panda.run()
            return None
        except (GuestPanic, GuestShutdown, GuestReset) as error:
            return [type(error).__name__, str(error)]

    found["panic"] = attempt("echo c > /proc/sysrq-trigger")
    found["off"] = attempt("poweroff -f")
    found["reboot"] = attempt("reboot -f")
    # After a power-off the next run boots the guest; the snapshot is there, too.
    found["output"] = in_guest(panda, lambda: panda.run_serial_cmd("echo alive"))
    return found


def test_guest_ends_it():
    found = run_case(case_guest_ends_it)
    assert found["panic"][0] == "GuestPanic" and "panic" in found["panic"][1]
    assert found["off"][0] == "GuestShutdown" and "run() again" in found["off"][1]
    assert found["reboot"][0] == "GuestReset" and "-no-reboot" in found["reboot"][1]
    assert found["output"] == "alive"


def case_context_manager():
    from pandalite import Panda

    with Panda(generic="x86_64") as panda:
        output = in_guest(panda, lambda: panda.run_serial_cmd("echo alive"))
    return {
        "output": output,
        "state": panda.libpanda.panda_machine_state(),
        "threads": [t.name for t in threading.enumerate()],
    }


def test_context_manager():
    result = run_case(case_context_manager)
    assert result["output"] == "alive"
    assert result["state"] == 5
    assert result["threads"] == ["MainThread"]


def case_exit_while_running():
    """The interpreter ends with a machine that nobody finished."""
    panda = boot()
    in_guest(panda, lambda: panda.run_serial_cmd("true"))
    print("leaving", flush=True)


def test_exit_without_finish():
    begin = time.monotonic()
    done = run_case_process(case_exit_while_running)
    assert done.returncode == 0, done.stderr
    assert "leaving" in done.stdout
    assert "Traceback" not in done.stderr and "Fatal" not in done.stderr
    assert time.monotonic() - begin < 30
