"""The serial console, with the shell of a real guest at the other end."""

from __future__ import annotations

import time

import pytest
from guest import boot, in_guest, run_case

ARCHES = ["x86_64", "i386"]


def raised(call, *args, **kwargs):
    """What a call raises: names of its class and its bases, and the message."""
    try:
        result = call(*args, **kwargs)
    except Exception as error:
        return [[c.__name__ for c in type(error).__mro__], str(error)]
    return [[], repr(result)]


def case_output(arch):
    panda = boot(arch)
    from pandalite import Panda

    assert isinstance(panda, Panda)
    results = {}

    def work():
        command = panda.run_serial_cmd
        results["plain"] = command("echo hello")
        results["bytes"] = command(b"echo bytes")
        results["trailing"] = command("echo newline\n")
        results["silent"] = command("true")
        results["blank"] = command("echo; echo; echo x; echo")
        results["spaces"] = command("printf '  two  \\n\\tx \\n'")
        results["no newline"] = command("printf abc")
        results["only prompt's text"] = command("echo \"$(uname -n)\" 'root@debian:# '")
        results["prompt inside"] = command(f"printf '%s\\n' '{panda.expect_prompt}' after")
        results["colours"] = command("printf '\\033[1;31mred\\033[0m \\033[32mgreen\\033[m\\n'")
        results["overwritten"] = command("printf '10%%\\r20%%\\rdone\\n'")
        results["utf-8"] = command("echo 'žluťoučký 日本 🐼'")
        results["invalid"] = command("printf 'a\\377b\\n'")
        results["stderr"] = command("ls /nonexistent")
        results["status"] = command("false; echo $?")
        results["lines"] = command("for i in 1 2 3\ndo echo line $i\ndone")
        results["two commands"] = command("echo first\necho second")
        results["cat"] = command("cat > /tmp/x << END\nalpha\n beta\nEND\ncat /tmp/x")
        results["quiet then output"] = command("sleep 0.2; printf a; sleep 0.2; echo b")
        results["seq"] = command("seq 1 21000")
        # Not longer than what a terminal's line discipline would hold.
        words = {}
        for length in (380, 399, 400, 401, 790, 1500, 3500):
            text = "".join(chr(97 + n % 26) for n in range(length))
            words[str(length)] = command(f"echo {text}") == text
        results["long"] = words
        results["long with blanks"] = command(f"echo {'word ' * 200}")
        results["next"] = command("echo $((6 * 7))")

    in_guest(panda, work)
    return results


@pytest.mark.parametrize("arch", ARCHES)
def test_output(arch):
    results = run_case(case_output, arch)
    prompt = f"root@debian-{arch}:# "
    assert results.pop("seq") == "\n".join(str(n) for n in range(1, 21001))
    assert results.pop("long with blanks") == " ".join(["word"] * 200)
    assert "No such file or directory" in results.pop("stderr")
    long = results.pop("long")
    assert [length for length, whole in long.items() if not whole] == []
    assert results == {
        "plain": "hello",
        "bytes": "bytes",
        "trailing": "newline",
        "silent": "",
        "blank": "\n\nx\n",
        "spaces": "  two  \n\tx ",
        "no newline": "abc",
        "only prompt's text": f"debian-{arch} root@debian:# ",
        "prompt inside": f"{prompt}\nafter",
        "colours": "red green",
        "overwritten": "done",
        "utf-8": "žluťoučký 日本 🐼",
        "invalid": "a\\xffb",
        "status": "1",
        "lines": "line 1\nline 2\nline 3",
        "two commands": "first\nsecond",
        "cat": "alpha\n beta",
        "quiet then output": "ab",
        "next": "42",
    }


def case_timeouts():
    panda = boot()
    results = {}

    def work():
        began = time.monotonic()
        results["expired"] = raised(panda.run_serial_cmd, "echo here; sleep 1000", timeout=1)
        results["after"] = time.monotonic() - began
        # What a person does: Ctrl-C, and go on.
        panda.type_serial_cmd("\x03")
        panda.finish_serial_cmd()
        results["recovered"] = [panda.run_serial_cmd(f"echo {n}") for n in range(5)]
        # The command ends by itself, later; its output is not the next one's.
        results["late"] = raised(panda.run_serial_cmd, "sleep 1; echo late", timeout=0.3)
        results["behind"] = panda.run_serial_cmd("echo next")
        results["late again"] = raised(panda.run_serial_cmd, "sleep 1; echo late", timeout=0.3)
        results["waited longer"] = panda.finish_serial_cmd()
        results["then"] = panda.run_serial_cmd("echo then")
        results["unclosed"] = raised(panda.run_serial_cmd, "echo 'open", timeout=1)
        panda.type_serial_cmd(b"\x03")
        panda.finish_serial_cmd()
        results["closed"] = panda.run_serial_cmd("echo closed")
        results["no_timeout"] = panda.run_serial_cmd("sleep 1; echo slow", no_timeout=True)
        # A revert forgets a command under way.
        panda.run_serial_cmd_async("sleep 1000", delay=0)
        panda.revert_sync("root")
        results["reverted"] = panda.run_serial_cmd("echo reverted")

    in_guest(panda, work)
    return results


def test_timeouts():
    results = run_case(case_timeouts)
    classes, message = results["expired"]
    assert "TimeoutExpired" in classes and "PandaError" in classes
    assert "within 1 s" in message and "sleep 1000" in message and "here" in message
    assert 0.9 < results["after"] < 20
    assert results["recovered"] == ["0", "1", "2", "3", "4"]
    assert "TimeoutExpired" in results["late"][0]
    assert results["behind"] == "next"
    assert results["waited longer"] == "late"
    assert results["then"] == "then"
    assert "a quote or a loop of the command is not closed" in results["unclosed"][1]
    assert results["closed"] == "closed"
    assert results["no_timeout"] == "slow"
    assert results["reverted"] == "reverted"


def case_pieces():
    """The variants that do not wait, and the raw stream."""
    panda = boot()
    results = {}

    def work():
        began = time.monotonic()
        panda.run_serial_cmd_async("sleep 0.5; echo done", delay=0)
        results["async returns"] = time.monotonic() - began
        results["finished"] = panda.finish_serial_cmd()
        began = time.monotonic()
        panda.run_serial_cmd_async("echo delayed", delay=0.4)
        results["delay"] = time.monotonic() - began
        results["finished long since"] = panda.finish_serial_cmd()
        results["nothing to finish"] = panda.finish_serial_cmd()
        panda.type_serial_cmd("echo ty")
        panda.type_serial_cmd(b"ped")
        results["typed"] = panda.finish_serial_cmd()
        results["after typing"] = panda.run_serial_cmd("echo x")
        # Typed while the guest stands still, and run when it goes on.
        panda.vm_stop()
        panda.type_serial_cmd("echo stopped")
        panda.cont()
        results["stopped"] = panda.finish_serial_cmd()
        # The raw stream, of which nothing is lost between two reads.
        panda.run_serial_cmd_async('printf "<%s>\\033[1m-%s;%s\\n" a""b c d', delay=0)
        results["first"] = panda.serial_read_until(b"<ab>").endswith(b"\n")
        results["second"] = panda.serial_read_until(b"-").hex()
        results["third"] = panda.serial_read_until(b"\n").decode()
        results["to the prompt"] = panda.serial_read_until(panda.expect_prompt.encode()) is not None
        results["command after"] = panda.run_serial_cmd("echo y")
        results["empty sequence"] = raised(panda.serial_read_until, b"")

    in_guest(panda, work)

    # A waiter is let go when the run ends, and the console works in the next.
    waits = []

    @panda.queue_blocking
    def waiting():
        panda.queue_async(panda.stop_run, internal=True)
        waits.append(panda.run_serial_cmd("sleep 1000"))

    panda.run()
    results["run ended"] = waits

    def again():
        results["again"] = panda.run_serial_cmd("echo again")

    in_guest(panda, again)
    results["in main thread"] = raised(panda.run_serial_cmd, "true")
    return results


def test_pieces():
    results = run_case(case_pieces)
    assert results["async returns"] < 0.4
    assert results["finished"] == "done"
    assert results["delay"] >= 0.4
    assert results["finished long since"] == "delayed"
    assert results["nothing to finish"] == ""
    assert results["typed"] == "typed"
    assert results["after typing"] == "x"
    assert results["stopped"] == "stopped"
    assert results["first"]
    assert bytes.fromhex(results["second"]) == b"\x1b[1m"
    assert results["third"] == "c;d\r"
    assert results["to the prompt"]
    assert results["command after"] == "y"
    assert "ValueError" in results["empty sequence"][0]
    assert results["run ended"] == [None]
    assert results["again"] == "again"
    classes, message = results["in main thread"]
    assert "BlockingCallError" in classes and "AssertionError" in classes
    assert "queue_blocking" in message


def case_no_console():
    from pandalite import Panda

    # A machine without firmware's help: it only has to exist.
    panda = Panda("x86_64", mem="32M", extra_args=["-nodefaults", "-display", "none"])
    results = {}

    @panda.queue_blocking
    def work():
        results["command"] = raised(panda.run_serial_cmd, "true")
        results["read"] = raised(panda.serial_read_until, b"x")
        results["copy"] = raised(panda.copy_to_guest, ".")
        panda.end_analysis()

    panda.run()
    return results


def test_no_console():
    results = run_case(case_no_console)
    for classes, message in (results["command"], results["read"]):
        assert "ConsoleError" in classes and "RuntimeError" in classes
        assert "expect_prompt=" in message
    assert "RuntimeError" in results["copy"][0] and "expect_prompt=" in results["copy"][1]
