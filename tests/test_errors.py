"""Bad input: a typed exception with the reason and the remedy, and a process that lives on."""

from __future__ import annotations

import pytest
from guest import boot, in_guest, run_case

from pandalite import errors


def describe(error):
    return [type(error).__name__, [c.__name__ for c in type(error).__mro__], str(error)]


def case_constructor(kwargs):
    """What Panda(**kwargs) raises, and that a good one can be made afterwards."""
    from pandalite import Panda

    try:
        Panda(**kwargs)
    except Exception as error:
        Panda(arch="x86_64")
        return describe(error)
    return None


def case_all_constructors(rows):
    from pandalite import Panda

    found = []
    for kwargs in rows:
        try:
            Panda(**kwargs)
            found.append(None)
        except Exception as error:
            found.append(describe(error))
    # None of them has used up the process.
    Panda(arch="x86_64")
    return found


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Files that are no good qcow2 images."""
    from pandalite.qcows import qcow2

    folder = tmp_path_factory.mktemp("images")
    text = folder / "text.qcow2"
    text.write_text("this is no disk image\n" * 100)
    whole = folder / "whole.qcow2"
    qcow2.create(whole, 1 << 30)
    truncated = folder / "truncated.qcow2"
    truncated.write_bytes(whole.read_bytes()[:200])
    return {"missing": str(folder / "missing.qcow2"), "text": str(text), "cut": str(truncated)}


def test_constructor_errors(images):
    table = [
        ({"arch": "x86_64", "qcow": images["missing"]}, errors.ImageError, "missing.qcow2"),
        ({"arch": "x86_64", "qcow": images["text"]}, errors.ImageError, "qcow2"),
        ({"arch": "x86_64", "qcow": images["cut"]}, errors.ImageError, "truncated"),
        ({"arch": "vax"}, errors.UnknownArchitectureError, "x86_64"),
        ({"arch": "vax"}, ValueError, "vax"),
        ({"generic": "nosuch"}, errors.UnknownImageError, "nosuch"),
        ({"arch": "x86_64", "extra_args": "-M 'pc"}, ValueError, "-M 'pc"),
        ({"arch": "x86_64", "extra_args": ["-M", 5]}, ValueError, "5"),
        ({"arch": "x86_64", "extra_args": "-smp 2"}, errors.UnsupportedFeatureError, "one virtual"),
        ({"arch": "x86_64", "extra_args": "-enable-kvm"}, NotImplementedError, "TCG"),
        ({"arch": "x86_64", "extra_args": "-daemonize"}, NotImplementedError, "fork"),
        ({"arch": "x86_64", "extra_args": "-kernel /no/such"}, errors.MachineError, "/no/such"),
        ({"arch": "x86_64", "expect_prompt": "([a-z"}, ValueError, "([a-z"),
        ({"arch": "x86_64", "os_version": "linux"}, ValueError, "linux-64-debian"),
        (
            {"arch": "x86_64", "libpanda_path": "/no/lib.so"},
            errors.CoreLibraryError,
            "/no/lib.so",
        ),
    ]
    found = run_case(case_all_constructors, [kwargs for kwargs, _, _ in table])
    for (kwargs, kind, words), result in zip(table, found):
        assert result is not None, f"{kwargs} raised nothing"
        name, bases, message = result
        assert kind.__name__ in bases, f"{kwargs}: {name}: {message}"
        assert "PandaError" in bases or kind is ValueError
        assert words in message, f"{kwargs}: {message}"


def case_machine(kwargs):
    """QEMU refuses the machine: run() says so, and so does the next one."""
    from pandalite import Panda

    panda = Panda(arch="x86_64", **kwargs)
    found = []
    for _ in range(2):
        try:
            panda.run()
            found.append(None)
        except Exception as error:
            found.append(describe(error))
    return {"found": found, "aborted": panda.was_aborted(), "finish": panda.panda_finish()}


@pytest.mark.parametrize(
    ("kwargs", "kind", "words"),
    [
        ({"extra_args": "-nosuchoption"}, "MachineError", "nosuchoption"),
        ({"extra_args": "-device nosuchdevice"}, "MachineError", "nosuchdevice"),
        ({"extra_args": "-M nosuchmachine"}, "MachineError", "nosuchmachine"),
        ({"extra_args": "-cpu nosuchcpu"}, "MachineError", "nosuchcpu"),
        ({"extra_args": "-drive file=/no/such/disk"}, "MachineError", "/no/such/disk"),
        ({"extra_args": "-version"}, "MachineError", "exit(0)"),
        ({"extra_args": "-loadvm nosuch"}, "PandaError", "snapshot"),
        ({"mem": "12Q"}, "MachineError", "12Q"),
        ({"mem": "100T"}, "MachineError", "mem"),
    ],
)
def test_machine_errors(kwargs, kind, words):
    result = run_case(case_machine, kwargs)
    first, second = result["found"]
    assert kind in first[1], first
    assert words.lower() in first[2].lower(), first
    assert second[0] == "StateError" and "new process" in second[2]
    assert result["aborted"]


def case_unknown_snapshot_at_start():
    from pandalite import Panda

    panda = Panda(generic="x86_64", extra_args=["-loadvm", "nosuch"])
    try:
        panda.run()
    except errors.UnknownSnapshotError as error:
        return str(error)
    return None


def test_unknown_snapshot_at_start():
    assert "nosuch" in run_case(case_unknown_snapshot_at_start)


def case_callbacks():
    panda = boot()
    found = {}

    def attempt(name, function):
        try:
            function()
            found[name] = None
        except Exception as error:
            found[name] = describe(error)

    callback = panda.callback
    attempt("arity", lambda: panda.cb_before_block_exec(lambda cpu: None))
    attempt("many", lambda: panda.cb_before_block_exec(lambda a, b, c: None))
    attempt(
        "object", lambda: panda.register_callback(callback.before_block_exec, 5, "not a function")
    )
    attempt("default", lambda: panda.cb_main_loop_wait(lambda extra=1: None, name="defaults"))
    attempt("loadvm", lambda: panda.cb_before_loadvm(lambda: None))
    attempt("enable", lambda: panda.enable_callback("nosuch"))
    attempt("disable", lambda: panda.disable_callback("nosuch"))
    attempt("enabled", lambda: panda.is_callback_enabled("nosuch"))
    attempt("delete", lambda: panda.delete_callback("nosuch"))
    attempt("record", lambda: panda.record("x"))
    attempt("ffi", lambda: panda.ffi)
    attempt("blocking", lambda: panda.run_serial_cmd("true"))
    attempt("end", panda.end_analysis)
    attempt("queue", lambda: panda.athread.queue(lambda: None))
    attempt("map", lambda: panda.map_memory("x", 4096, 0xA0000000))
    attempt("read", lambda: panda.physical_memory_read(0, 4))

    # On the CPU thread nothing may wait for the main thread: no deadlock.
    @panda.cb_before_block_exec
    def in_callback(cpu, tb):
        panda.disable_callback("in_callback")
        attempt("monitor", lambda: panda.run_monitor_cmd("info status"))
        attempt("revert", lambda: panda.revert_sync("root"))
        attempt("serial", lambda: panda.run_serial_cmd("true"))

    # A callback's name that is taken is replaced.
    calls = []
    panda.cb_top_loop(lambda cpu: calls.append(1), name="twice", enabled=False)
    panda.cb_top_loop(lambda cpu: calls.append(2), name="twice")

    def work():
        attempt("unknown monitor", lambda: None)
        found["answer"] = panda.run_monitor_cmd("nosuchcommand")
        attempt("timeout", lambda: panda.run_serial_cmd("sleep 30", timeout=0.5))
        attempt("second run", panda.run)
        return None

    in_guest(panda, work)
    found["calls"] = sorted(set(calls))
    return found


def test_callback_errors():
    found = run_case(case_callbacks)

    def check(name, kind, *words):
        assert found[name] is not None, f"{name} raised nothing"
        assert kind in found[name][1], found[name]
        for word in words:
            assert word in found[name][2], found[name]

    check("arity", "CallbackSignatureError", "before_block_exec", "2 arguments", "env, tb")
    check("arity", "TypeError")
    check("many", "CallbackSignatureError")
    check("object", "CallbackSignatureError")
    assert found["default"] is None
    check("loadvm", "UnsupportedFeatureError", "after_loadvm")
    for name in ("enable", "disable", "enabled"):
        check(name, "RuntimeError", "nosuch")
    check("delete", "ValueError", "nosuch")
    check("record", "StateError", "no machine")
    check("ffi", "UnsupportedFeatureError", "ctypes")
    check("blocking", "BlockingCallError", "Blocking function run in main thread")
    check("blocking", "AssertionError")
    check("end", "StateError", "run()")
    check("queue", "StateError", "blocking")
    check("map", "StateError")
    check("read", "StateError", "no machine")
    check("monitor", "StateError", "CPU thread")
    check("revert", "StateError", "CPU thread")
    check("serial", "BlockingCallError", "CPU thread")
    check("timeout", "TimeoutExpired", "0.5 s", "sleep 30", "timeout=")
    check("second run", "StateError", "active already")
    assert "unknown command" in found["answer"]
    assert found["calls"] == [2]


def case_prompt_never_seen():
    from pandalite import Panda

    panda = Panda(arch="x86_64", mem="16M", expect_prompt="no such prompt", extra_args="-M pc")

    @panda.queue_blocking
    def work():
        panda.run_serial_cmd("hello", timeout=0.5)

    try:
        panda.run()
    except errors.TimeoutExpired as error:
        return str(error)
    return None


def test_prompt_never_seen():
    message = run_case(case_prompt_never_seen)
    assert "no such prompt" in message and "expect_prompt" in message
