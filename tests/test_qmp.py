"""QMP commands that callbacks answer, over a socket as a client sees them."""

from __future__ import annotations

import json
import socket
import tempfile
from pathlib import Path
from typing import Any

from guest import run_case


def case_commands() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return ask(Path(folder) / "qmp")


def ask(path: Path) -> dict[str, Any]:
    from pandalite import Panda

    panda = Panda(
        arch="x86_64",
        extra_args=["-nodefaults", "-qmp", f"unix:{path},server=on,wait=off"],
    )
    asked: list[Any] = []
    found: dict[str, Any] = {}

    @panda.cb_qmp
    def first(command: bytes, args: bytes, result: Any) -> bool:
        asked.append([command.decode(), json.loads(args)])
        if command == b"both":
            result[0] = b'"of the first"'
            return True
        if command == b"untrue":
            result[0] = b'"not looked at"'
        return False

    @panda.cb_qmp
    def second(command: bytes, args: bytes, result: Any) -> Any:
        if command == b"unknown":
            return None
        if command == b"bad":
            result[0] = b"{no json"
        elif command != b"empty":
            # Bytes that nothing else holds.
            text = json.dumps({"command": command.decode(), "long": "x" * 10000})
            result[0] = text.encode()
        return True

    with socket.socket(socket.AF_UNIX) as client:

        def send(name: str, line: str) -> None:
            print(line, file=lines, flush=True)
            answer = json.loads(lines.readline())
            while "event" in answer:
                answer = json.loads(lines.readline())
            found[name] = answer

        @panda.queue_blocking
        def work() -> None:
            nonlocal lines
            client.settimeout(30)
            client.connect(str(path))
            lines = client.makefile("rw")
            found["greeting"] = list(json.loads(lines.readline()))
            send("too early", '{"execute": "mine"}')
            send("start", '{"execute": "qmp_capabilities"}')
            send("mine", '{"execute": "mine", "arguments": {"a": [1, "b"]}, "id": 7}')
            for name in ("both", "untrue", "empty", "bad", "unknown", "query-status"):
                send(name, json.dumps({"execute": name}))
            panda.disable_callback("first")
            panda.disable_callback("second")
            send("disabled", '{"execute": "mine"}')
            panda.end_analysis()

        lines: Any = None
        panda.run()
    return {**found, "asked": asked}


def test_commands() -> None:
    found = run_case(case_commands)
    missing = {"class": "CommandNotFound", "desc": "The command {} has not been found"}

    def not_found(name: str) -> Any:
        return {**missing, "desc": missing["desc"].format(name)}

    assert found["greeting"] == ["QMP"]
    # Before the client has agreed on how to speak nobody is asked.
    assert found["too early"]["error"]["class"] == "CommandNotFound"
    assert found["start"] == {"return": {}}
    assert found["mine"] == {"return": {"command": "mine", "long": "x" * 10000}, "id": 7}
    assert found["both"] == {"return": "of the first"}
    assert found["untrue"]["return"]["command"] == "untrue"
    assert found["empty"] == {"return": {}}
    assert found["bad"]["error"]["class"] == "GenericError"
    assert "what a callback answers to bad is not JSON" in found["bad"]["error"]["desc"]
    assert found["unknown"] == {"error": not_found("unknown")}
    # A command QEMU knows is QEMU's.
    assert found["query-status"]["return"]["status"] == "running"
    assert found["disabled"] == {"error": not_found("mine")}
    assert found["asked"] == [
        ["mine", {"a": [1, "b"]}],
        *([name, {}] for name in ("both", "untrue", "empty", "bad", "unknown")),
    ]
