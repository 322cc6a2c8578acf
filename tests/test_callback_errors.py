"""What goes wrong in callbacks, for each of the 51 kinds: bad functions, exceptions."""

from __future__ import annotations

import json
import socket
import tempfile
from pathlib import Path
from typing import Any

import pytest
from guest import run_case
from snippets import TARGETS, Guest

from pandalite._bindings.callbacks import KINDS

#: Declared; raised by nothing yet, or never.
SILENT = {
    *("hd_read", "hd_write", "before_loadvm"),
    *(name for name in KINDS if name.startswith("replay_")),
}
#: Raised once in the life of a machine.
ONCE = ["during_machine_init", "after_machine_init"]


def function(count: int, more: str = "") -> Any:
    """A function of so many arguments, and of others that are written out."""
    names = [f"a{n}" for n in range(count)]
    return eval(f"lambda {', '.join([*names, more] if more else names)}: None")


# ---- functions that do not fit ----


def case_functions() -> dict[str, Any]:
    from pandalite import Panda

    panda = Panda(arch="x86_64")
    found: dict[str, Any] = {}

    def register(name: str, what: Any) -> Any:
        decorate = getattr(panda, f"cb_{name}")
        try:
            decorate(name=f"a {name}")(what)
        except Exception as error:
            return [type(error).__name__, str(error)]
        panda.delete_callback(f"a {name}")
        return None

    for name, kind in KINDS.items():
        count = len(kind.argnames)
        found[name] = {
            "fits": register(name, function(count)),
            "any": register(name, lambda *args: None),
            "more": register(name, function(count + 1)),
            "fewer": register(name, function(count - 1)) if count else None,
            "keyword": register(name, function(count, "*, key")),
            "number": register(name, 5),
            "none": register(name, None),
            "text": register(name, name),
            "c type": register(name, getattr(panda.callback, name)(function(count))),
        }
    assert panda.registered_callbacks == {}
    return found


@pytest.fixture(scope="module")
def functions() -> Any:
    return run_case(case_functions)


def test_there_are_51_kinds(functions: Any) -> None:
    assert len(KINDS) == len(functions) == 51


@pytest.mark.parametrize("name", KINDS)
def test_functions_that_do_not_fit(functions: Any, name: str) -> None:
    found = functions[name]
    count = len(KINDS[name].argnames)
    for what in ("fits", "any", "c type"):
        if name == "before_loadvm":
            assert found[what][0] == "UnsupportedFeatureError"
            assert "after_loadvm" in found[what][1]
        else:
            assert found[what] is None, what
    for what in ("more", "fewer", "keyword"):
        if what == "fewer" and not count:
            continue
        error, text = found[what]
        assert error == "CallbackSignatureError", what
        plural = "" if count == 1 else "s"
        assert f"does not fit kind {name}, which passes {count} argument{plural}" in text
        assert all(argument in text for argument in KINDS[name].argnames)
    for what in ("number", "text"):
        error, text = found[what]
        assert error == "CallbackSignatureError"
        assert text.startswith(f"{name}: ") and text.endswith("is not a function")
    error, text = found["none"]
    assert error == "CallbackSignatureError"
    assert text == f"{name}: None is not a function"


# ---- functions that raise ----


class KindError(Exception):
    """Names the kind whose callback raises it."""


#: A guest that goes through all kinds of events for ever.
LOOP = f"""
    lea     divided_by_zero(%rip), %rax
    mov     %ax, idt
    shr     $16, %rax
    mov     %ax, idt + 6
1:  mov     $0xfe, %al
    out     %al, $0x21
    sti
    nop
    cli
    hypercall 1, 2
    poke    {TARGETS["x86_64"].device.virtual}, 5
    peek    {TARGETS["x86_64"].device.virtual}
    poke    {TARGETS["x86_64"].nothing.virtual}, 5
    peek    {TARGETS["x86_64"].nothing.virtual}
    mov     %cr3, %rax
    mov     %rax, %cr3
    xor     %ecx, %ecx
    div     %ecx
    jmp     1b
divided_by_zero:
    addq    $2, (%rsp)
    iretq
"""


def failing(kind: Any, error: BaseException) -> Any:
    def fail(*args: Any) -> Any:
        raise error

    return eval(
        f"lambda {', '.join(kind.argnames)}: fail({', '.join(kind.argnames)})", {"fail": fail}
    )


def case_exceptions() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return run_with_each(Path(folder))


def run_with_each(folder: Path) -> dict[str, Any]:
    from pandalite.qcows import qcow2

    disk, monitor = folder / "disk.qcow2", folder / "qmp"
    qcow2.create(disk, 1 << 20)
    words = ["-drive", f"file={disk},if=none,format=qcow2,id=disk"]
    words += ["-qmp", f"unix:{monitor},server=on,wait=off"]
    guest = Guest("x86_64", LOOP, "self_test_user", words)
    panda = guest.panda

    # The guest reaches the loop.
    @panda.cb_guest_hypercall(enabled=False)
    def reached(cpu: Any) -> None:
        panda.end_analysis()

    guest.enabled = ["reached"]
    panda.run()

    @panda.queue_blocking
    def save() -> None:
        panda.snap_sync("saved")
        panda.end_analysis()

    panda.run()

    def unknown_command() -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30)
            client.connect(str(monitor))
            lines = client.makefile("rw")
            lines.readline()
            for command in ("qmp_capabilities", "nobody-knows"):
                print(json.dumps({"execute": command}), file=lines, flush=True)
                lines.readline()

    acts = {
        "monitor": lambda: panda.run_monitor_cmd("plugin_cmd words"),
        "qmp": unknown_command,
        "after_loadvm": lambda: panda.revert_sync("saved"),
        "pre_shutdown": lambda: panda.run_monitor_cmd("quit"),
    }
    kinds = [k for name, k in KINDS.items() if name not in {*SILENT, *ONCE, "pre_shutdown"}]

    def end_of_run(kind: Any) -> Any:
        error = KindError(kind.name)
        calls: list[str] = []
        register = getattr(panda, f"cb_{kind.name}")
        register(failing(kind, error), name="failing")
        if kind.name in ("insn_exec", "after_insn_exec"):
            select = "insn_translate" if kind.name == "insn_exec" else "after_insn_translate"
            getattr(panda, f"cb_{select}")(lambda cpu, pc: True, name="select")
        # None runs after one that has failed.
        register(lambda *args: calls.append("second"), name="second")

        @panda.queue_blocking
        def work() -> None:
            panda.flush_tb()
            acts.get(kind.name, lambda: None)()

        try:
            panda.run()
        except BaseException as caught:
            return calls if caught is error else repr(caught)
        return "nothing"

    return {kind.name: end_of_run(kind) for kind in [*kinds, KINDS["pre_shutdown"]]}


def case_once(name: str) -> Any:
    from pandalite import Panda

    panda = Panda(arch="x86_64", extra_args=["-nodefaults"])
    error = KindError(name)
    getattr(panda, f"cb_{name}")(failing(KINDS[name], error), name="failing")
    try:
        panda.run()
    except BaseException as caught:
        return caught is error or repr(caught)
    return "nothing"


@pytest.fixture(scope="module")
def exceptions() -> Any:
    return run_case(case_exceptions, timeout=100)


@pytest.mark.parametrize("name", [n for n in KINDS if n not in SILENT and n not in ONCE])
def test_exceptions_end_the_run(exceptions: Any, name: str) -> None:
    assert exceptions[name] == []


@pytest.mark.parametrize("name", ONCE)
def test_exceptions_at_creation(name: str) -> None:
    assert run_case(case_once, name) is True
