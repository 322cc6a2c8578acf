"""Signals, and exceptions in callbacks: both end run(), nothing else changes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from guest import ROOT, TIMEOUT, boot, case_command, run_case, run_case_process

#: Seconds from Ctrl-C to KeyboardInterrupt out of run(), in every state.
BOUND = 1.0


class Interrupter:
    """Sends SIGINT to this process, and says how long ago."""

    def __init__(self):
        self.sent = None

    def after(self, delay, when=None):
        """Send it `delay` seconds after the event `when`, from a thread of its own."""

        def send():
            if when is not None:
                when.wait(60)
            time.sleep(delay)
            self.sent = time.monotonic()
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=send)
        thread.start()
        return thread


def interrupted_run(panda, delay=0.3, when=None):
    """Seconds between SIGINT and the exception, or what went wrong."""
    interrupter = Interrupter()
    thread = interrupter.after(delay, when)
    try:
        panda.run()
        result = "run() returned"
    except KeyboardInterrupt:
        result = time.monotonic() - interrupter.sent
    thread.join()
    return result


def case_ctrl_c():
    """Ctrl-C in one state after the other: each leaves a Panda that runs again."""
    panda = boot()
    results = {}
    results["boot"] = interrupted_run(panda)

    # In a blocking function that waits for the guest.
    busy = threading.Event()

    @panda.queue_blocking
    def command():
        panda.revert_sync("root")
        busy.set()
        panda.run_serial_cmd("sleep 100")

    results["command"] = interrupted_run(panda, when=busy)

    # In a blocking function that does not.
    asleep = threading.Event()

    @panda.queue_blocking
    def sleeper():
        asleep.set()
        time.sleep(20)

    results["sleeping function"] = interrupted_run(panda, when=asleep)

    # In a callback that loops in Python.
    looping = threading.Event()

    @panda.cb_before_block_exec
    def loop(cpu, tb):
        looping.set()
        while True:
            pass

    results["looping callback"] = interrupted_run(panda, when=looping)

    # In callbacks that come one after the other.
    called = threading.Event()

    @panda.cb_before_block_exec
    def every(cpu, tb):
        called.set()

    results["many callbacks"] = interrupted_run(panda, when=called)

    # In the main thread: main_loop_wait, and a function queued for it.
    waiting = threading.Event()

    @panda.cb_main_loop_wait
    def main_loop():
        waiting.set()
        time.sleep(20)

    results["main_loop_wait"] = interrupted_run(panda, when=waiting)

    queued = threading.Event()

    def in_main_loop():
        queued.set()
        while True:
            pass

    panda.queue_main_loop_wait_fn(in_main_loop)
    results["main loop function"] = interrupted_run(panda, when=queued)

    # Between runs it is an ordinary KeyboardInterrupt.
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
        results["between"] = "not raised"
    except KeyboardInterrupt:
        results["between"] = 0

    # The machine is as good as before.
    output = []

    @panda.queue_blocking
    def work():
        panda.revert_sync("root")
        output.append(panda.run_serial_cmd("echo $((6 * 7))"))
        panda.end_analysis()

    panda.run()
    return {"seconds": results, "output": output[0]}


def test_ctrl_c():
    result = run_case(case_ctrl_c)
    for state, seconds in result["seconds"].items():
        assert isinstance(seconds, (int, float)), f"{state}: {seconds}"
        assert seconds < BOUND, f"{state}: {seconds:.2f} s"
    assert result["output"] == "42"


def case_ctrl_c_in_sleeping_callback():
    """A callback inside a C function cannot be woken: run() ends without it."""
    panda = boot()
    asleep = threading.Event()

    @panda.cb_before_block_exec
    def sleep(cpu, tb):
        asleep.set()
        time.sleep(30)

    seconds = interrupted_run(panda, when=asleep)
    print(f"seconds={seconds}", flush=True)
    # A second Ctrl-C, and the exit of the interpreter, while it still sleeps.
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    except KeyboardInterrupt:
        print("again", flush=True)


def test_ctrl_c_in_sleeping_callback():
    begin = time.monotonic()
    done = run_case_process(case_ctrl_c_in_sleeping_callback)
    elapsed = time.monotonic() - begin
    assert done.returncode == 0, done.stderr
    assert float(re.search(r"seconds=(.*)", done.stdout)[1]) < BOUND
    assert "again" in done.stdout
    assert "cannot be interrupted" in done.stderr
    # Not the callback's 30 seconds.
    assert elapsed < 20


def case_sleeping_callback_then_run():
    """After the callback has returned at last, the machine goes on."""
    panda = boot()
    asleep = threading.Event()

    @panda.cb_before_block_exec
    def sleep(cpu, tb):
        asleep.set()
        time.sleep(3)

    first = interrupted_run(panda, when=asleep)
    output = []

    @panda.queue_blocking
    def work():
        panda.revert_sync("root")
        output.append(panda.run_serial_cmd("echo $((6 * 7))"))
        panda.end_analysis()

    panda.run()
    return {"first": first, "output": output, "finish": panda.panda_finish()}


def test_sleeping_callback_then_run():
    result = run_case(case_sleeping_callback_then_run)
    assert result["first"] < BOUND
    assert result["output"] == ["42"]
    assert result["finish"] == 0


def case_second_ctrl_c():
    """Ctrl-C twice within the time the first one takes."""
    panda = boot()
    looping = threading.Event()

    @panda.cb_before_block_exec
    def loop(cpu, tb):
        looping.set()
        while True:
            pass

    first, second = Interrupter(), Interrupter()
    threads = [first.after(0.2, looping), second.after(0.3, looping)]
    caught = 0
    try:
        try:
            panda.run()
        except KeyboardInterrupt:
            caught += 1
        for thread in threads:
            thread.join()
        time.sleep(0.2)
    except KeyboardInterrupt:
        caught += 1
    seconds = time.monotonic() - first.sent
    output = []

    @panda.queue_blocking
    def work():
        panda.revert_sync("root")
        output.append(panda.run_serial_cmd("echo $((6 * 7))"))
        panda.end_analysis()

    panda.run()
    return {
        "caught": caught,
        "seconds": seconds,
        "output": output,
        "registered": list(panda.registered_callbacks),
    }


def test_second_ctrl_c():
    result = run_case(case_second_ctrl_c)
    assert 1 <= result["caught"] <= 2
    assert result["seconds"] < 2 * BOUND
    assert result["output"] == ["42"]
    assert result["registered"] == []


def process_state():
    """What belongs to the process and not to a library."""
    import ctypes
    import fcntl
    import locale
    import resource

    libc = ctypes.CDLL(None)
    handlers = {}
    # The kernel's view: Python knows only of the handlers it set itself.
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(("SigBlk", "SigIgn", "SigCgt")):
                key, value = line.split()
                # 32 and 33 are the C library's own, from the first thread on.
                handlers[key] = int(value, 16) & ~(3 << 31)
    mask = os.umask(0)
    os.umask(mask)
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    state = {
        **handlers,
        "python": {
            s.name: str(signal.getsignal(s))
            for s in signal.valid_signals()
            if s != 0 and isinstance(s, signal.Signals)
        },
        "wakeup": wakeup,
        "mask": sorted(int(s) for s in signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "nofile": resource.getrlimit(resource.RLIMIT_NOFILE),
        "core": resource.getrlimit(resource.RLIMIT_CORE),
        "slack": libc.prctl(30, 0, 0, 0, 0),
        "dumpable": libc.prctl(3, 0, 0, 0, 0),
        "name": Path("/proc/self/comm").read_text(),
        "umask": mask,
        "cwd": os.getcwd(),
        "locale": locale.setlocale(locale.LC_ALL),
        "environ": sorted(os.environ.items()),
        "stdio": [fcntl.fcntl(fd, fcntl.F_GETFL) for fd in (0, 1, 2)],
        "session": os.getsid(0),
        "group": os.getpgid(0),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "affinity": sorted(os.sched_getaffinity(0)),
    }
    if os.isatty(0):
        import termios

        state["terminal"] = [str(x) for x in termios.tcgetattr(0)]
        state["foreground"] = os.tcgetpgrp(0)
    return state


def case_process_state():
    import resource

    # Nothing of this is at its default, so a reset shows too.
    signal.signal(signal.SIGUSR2, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGWINCH])
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, 1000))
    os.umask(0o027)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    before = process_state()
    panda = boot()
    constructed = process_state()
    during = []

    @panda.queue_blocking
    def work():
        panda.revert_sync("root")
        panda.run_serial_cmd("true")
        panda.end_analysis()

    panda.run()
    after_run = process_state()
    interrupted = interrupted_run(panda)
    after_interrupt = process_state()
    # The host program's own wakeup descriptor saw the signal too.
    os.set_blocking(reader, False)
    noted = list(os.read(reader, 100))
    panda.panda_finish()
    after_finish = process_state()
    states = [constructed, after_run, after_interrupt, after_finish]
    return {
        "changed": [
            {k: [before[k], state[k]] for k in before if state[k] != before[k]} for state in states
        ],
        "terminal": "terminal" in before,
        "interrupted": interrupted,
        "noted": noted,
        "during": during,
    }


def run_on_terminal(case):
    """Run a case on a pseudo terminal; returns its status and what it printed."""
    import pty

    leader, follower = pty.openpty()
    child = subprocess.Popen(
        case_command(case),
        stdin=follower,
        stdout=follower,
        stderr=follower,
        cwd=ROOT,
        start_new_session=True,
        preexec_fn=lambda: __import__("fcntl").ioctl(0, 0x540E, 0),
    )
    os.close(follower)
    output = b""
    deadline = time.monotonic() + TIMEOUT
    timer = threading.Timer(TIMEOUT, child.kill)
    timer.start()
    try:
        while time.monotonic() < deadline:
            try:
                data = os.read(leader, 65536)
            except OSError:
                break
            if not data:
                break
            output += data
        status = child.wait(10)
    finally:
        timer.cancel()
        if child.poll() is None:
            child.kill()
            child.wait()
        os.close(leader)
    return status, output.decode(errors="replace")


def test_process_state():
    status, output = run_on_terminal(case_process_state)
    assert status == 0, output
    result = json.loads(output.rsplit("@@result@@", 1)[1])
    assert result["terminal"]
    assert result["interrupted"] < BOUND
    assert result["noted"] == [signal.SIGINT]
    assert result["changed"] == [{}, {}, {}, {}]


def case_own_handlers():
    panda = boot()
    rang = []
    signal.signal(signal.SIGALRM, lambda *_: rang.append("alarm"))
    signal.signal(signal.SIGUSR1, lambda *_: rang.append("user"))
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    blocks = [0]
    output = []

    @panda.cb_before_block_exec(enabled=False)
    def count(cpu, tb):
        blocks[0] += 1

    @panda.queue_blocking
    def work():
        panda.revert_sync("root")
        panda.enable_callback("count")
        for number in range(8):
            os.kill(os.getpid(), signal.SIGUSR1)
            output.append(panda.run_serial_cmd(f"echo $(({number} * 7))"))
        panda.disable_callback("count")
        panda.end_analysis()

    panda.run()
    during = len(rang)
    signal.setitimer(signal.ITIMER_REAL, 0)

    # A handler that raises ends the run with its exception.
    class Raised(Exception):
        pass

    def handler(*_):
        raise Raised("from the handler")

    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    raised = None
    try:
        panda.run()
    except Raised as error:
        raised = str(error)
    return {
        "alarms": rang.count("alarm"),
        "user": rang.count("user"),
        "during": during,
        "output": output,
        "blocks": blocks[0],
        "raised": raised,
    }


def test_own_handlers():
    result = run_case(case_own_handlers)
    assert result["output"] == [str(n * 7) for n in range(8)]
    assert result["alarms"] > 10
    assert result["user"] >= 1
    assert result["blocks"] > 10000
    assert result["raised"] == "from the handler"


# --- exceptions in callbacks and in functions ---


def case_sys_exit(where):
    panda = boot()

    @panda.queue_blocking
    def work():
        panda.revert_sync("root")
        if where == "queued":
            sys.exit(3)
        if where == "callback":
            panda.cb_before_block_exec(lambda cpu, tb: sys.exit(3))
        if where == "main":
            panda.queue_main_loop_wait_fn(sys.exit, [3])
        time.sleep(20)

    panda.run()


@pytest.mark.parametrize("where", ["callback", "queued", "main"])
def test_sys_exit(where):
    done = run_case_process(case_sys_exit, where)
    assert done.returncode == 3, done.stderr
    assert done.stderr.count("Traceback") == 0


class Mine(Exception):
    pass


def innermost(error):
    """Name of the function that raised."""
    import traceback

    return traceback.extract_tb(error.__traceback__)[-1].name


def case_exceptions():
    panda = boot()
    results = {}

    def run(name):
        try:
            panda.run()
            results[name] = "no exception"
        except Mine as error:
            results[name] = [str(error), innermost(error)]

    # In after_machine_init: the guest does not even start.
    started = []

    @panda.cb_after_machine_init
    def after_init(cpu):
        panda.register_callback(
            panda.callback.before_block_exec, lambda cpu, tb: started.append(1), "started"
        )
        raise Mine("init")

    run("init")
    results["started"] = len(started)

    # The first one wins, and after it no callback's body runs.
    bodies = []

    @panda.cb_before_block_exec
    def failing(cpu, tb):
        bodies.append("failing")
        raise Mine("first")

    @panda.cb_start_block_exec
    def bystander(cpu, tb):
        bodies.append("bystander")
        raise Mine("second")

    @panda.cb_main_loop_wait
    def slow():
        if bodies:
            time.sleep(0.2)

    @panda.queue_blocking
    def waits():
        panda.running.wait()
        while not bodies:
            time.sleep(0.001)
        time.sleep(0.05)
        raise Mine("third")

    run("callback")
    results["bodies"] = bodies[:5]
    panda.athread.stop(discard=True)

    @panda.queue_blocking
    def queued():
        panda.revert_sync("root")
        raise Mine("queued")

    run("queued")

    def for_main():
        raise Mine("main")

    panda.queue_main_loop_wait_fn(for_main)
    run("main")

    @panda.cb_main_loop_wait
    def main_loop():
        raise Mine("loop")

    run("main_loop_wait")

    @panda.cb_after_loadvm
    def loadvm(cpu):
        raise Mine("loadvm")

    @panda.queue_blocking
    def reverts():
        panda.revert_sync("root")
        time.sleep(10)

    run("after_loadvm")

    # A memory callback and one in translation.
    @panda.cb_virt_mem_after_read
    def memory(cpu, pc, addr, size, buf):
        raise Mine("memory")

    run("memory")

    @panda.cb_before_block_translate
    def translate(cpu, pc):
        raise Mine("translate")

    @panda.queue_blocking
    def run_something_new():
        panda.revert_sync("root")
        panda.run_serial_cmd("ls / > /dev/null")
        time.sleep(10)

    run("translate")

    # None of it has hurt the machine, and the exception is not raised twice.
    output = []

    @panda.queue_blocking
    def work():
        panda.revert_sync("root")
        output.append(panda.run_serial_cmd("echo $((6 * 7))"))
        panda.end_analysis()

    panda.run()
    results["output"] = output
    results["left"] = str(panda.exit_exception)
    return results


def test_exceptions():
    results = run_case(case_exceptions)
    assert results["init"] == ["init", "after_init"]
    assert results["started"] == 0
    assert results["callback"] == ["first", "failing"]
    assert results["bodies"] == ["failing"]
    assert results["queued"] == ["queued", "queued"]
    assert results["main"] == ["main", "for_main"]
    assert results["main_loop_wait"] == ["loop", "main_loop"]
    assert results["after_loadvm"] == ["loadvm", "loadvm"]
    assert results["memory"] == ["memory", "memory"]
    assert results["translate"] == ["translate", "translate"]
    assert results["output"] == ["42"]
    assert results["left"] == "None"


def case_during_machine_init():
    panda = boot()

    @panda.cb_during_machine_init
    def during(machine):
        raise Mine("during")

    try:
        panda.run()
    except Mine as error:
        return [str(error), innermost(error)]


def test_exception_in_during_machine_init():
    assert run_case(case_during_machine_init) == ["during", "during"]


def case_not_caught():
    """catch_exceptions=False: printed, and the run goes on."""
    panda = boot(catch_exceptions=False)
    count = [0]
    output = []

    @panda.cb_before_block_exec(enabled=False)
    def failing(cpu, tb):
        count[0] += 1
        if count[0] <= 3:
            raise Mine("printed")

    @panda.queue_blocking
    def fails():
        panda.revert_sync("root")
        raise Mine("queued")

    @panda.queue_blocking
    def work():
        panda.queue_main_loop_wait_fn(failing_in_main)
        panda.enable_callback("failing")
        output.append(panda.run_serial_cmd("echo $((6 * 7))"))
        panda.end_analysis()

    def failing_in_main():
        raise Mine("main")

    panda.run()
    return {"output": output, "count": count[0]}


def test_exceptions_not_caught():
    done = run_case_process(case_not_caught)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.rsplit("@@result@@", 1)[1])
    assert result["output"] == ["42"]
    assert result["count"] > 3
    assert done.stderr.count("Mine: printed") == 3
    assert "Mine: queued" in done.stderr
    assert "Mine: main" in done.stderr
