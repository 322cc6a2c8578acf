"""Sockets of the guest's processes, compared with its own /proc/net.

All kinds that the tiny guests' programs can open: TCP that listens and that is
connected, over both versions of IP, UDP, raw ones, local ones, netlink, packets.
"""

from __future__ import annotations

import re
import socket
import struct
from collections import Counter
from typing import Any

import pytest
from guest import boot, in_guest, run_case
from test_os_guest import at_rest, lines_of

from pandalite.errors import IntrospectionError

#: A program that a kernel or a shell has no support for just ends.
SCENE = (
    "ip addr add 127.0.0.1/8 dev lo 2>/dev/null; ip link set lo up",
    "httpd -p 127.0.0.1:8080 -h /tmp",
    "httpd -p 8081 -h /tmp",
    "(sleep 1000 | nc -l -p 4321 > /dev/null 2>&1) &",
    "(sleep 1000 | nc -l -p 4322 > /dev/null 2>&1) &",
    "(sleep 1000 | nc -l -p 4323 > /dev/null 2>&1) &",
    "sleep 2",
    "(sleep 1000 | nc 127.0.0.1 4321 > /dev/null 2>&1) &",
    "(sleep 1000 | nc ::1 4322 > /dev/null 2>&1) &",
    "syslogd",
    "klogd",
    "uevent sleep 1 > /dev/null 2>&1 &",
    "ping 127.0.0.1 > /dev/null 2>&1 &",
    "ping6 ::1 > /dev/null 2>&1 &",
    "udhcpc -f -i lo -s /bin/true > /dev/null 2>&1 &",
    # Only bash knows these.
    "exec 8<>/dev/udp/127.0.0.1/514",
    "exec 9<>/dev/tcp/127.0.0.1/8080",
    "sleep 1",
)

FILES = ("tcp", "tcp6", "udp", "udp6", "raw", "raw6", "unix", "netlink", "packet")


def look_at_sockets(panda: Any) -> dict[str, Any]:
    """What panda.os says of all sockets, by their inodes, and what /proc/net says."""
    for command in SCENE:
        panda.run_serial_cmd(command, timeout=60)
    word = panda.run_serial_cmd("printf '\\1\\0' | od -An -tx2").strip()
    out: dict[str, Any] = {"order": {"0001": "<", "0100": ">"}[word], "net": {}}
    out["machine"] = panda.run_serial_cmd("uname -m").strip()

    def look(cpu: Any) -> dict[str, Any]:
        found = {}
        for p in panda.os.processes():
            paths = {f.fd: f.path for f in p.files()} if p.mm else {}
            for s in p.sockets() if p.mm else []:
                inode = re.fullmatch(r"socket:\[(\d+)\]", paths.pop(s.fd))
                assert inode
                found[inode[1]] = [
                    *(s.family, s.kind, s.protocol, s.state, *s.local, *s.remote),
                    p.name,
                ]
            assert not any(path.startswith("socket:") for path in paths.values())
        return found

    for name in FILES:
        out["net"][name] = lines_of(panda, f"cat /proc/net/{name} 2>/dev/null")[1:]
    try:
        out["found"] = at_rest(panda, look)
    except IntrospectionError as error:
        out["found"] = str(error)
    out["report"] = [
        line
        for line in panda.os.report().splitlines()
        if re.match(r"(sock|socket|unix_\w+|file\.private_data)\b", line)
    ]
    for name in FILES:
        out["net"][name] += lines_of(panda, f"cat /proc/net/{name} 2>/dev/null")[1:]
    return out


def _end(text: str, order: str) -> list[Any]:
    """An address as the kernel prints it: by numbers of 32 bits, in its own byte order."""
    address, port = text.split(":")
    numbers = [int(address[i : i + 8], 16) for i in range(0, len(address), 8)]
    raw = struct.pack(f"{order}{len(numbers)}I", *numbers)
    return [
        socket.inet_ntop(socket.AF_INET6 if len(raw) == 16 else socket.AF_INET, raw),
        int(port, 16),
    ]


_KINDS = {1: "stream", 2: "dgram", 3: "raw", 5: "seqpacket"}
_KINDS_OF_MIPS = {**_KINDS, 1: "dgram", 2: "stream"}
_OF_INET = {"tcp": ("stream", 6), "udp": ("dgram", 17), "raw": ("raw", None)}


def _true(out: dict[str, Any]) -> dict[str, list[list[Any]]]:
    """Of each inode what /proc/net said before and after, in the form of what is found."""
    truth: dict[str, list[list[Any]]] = {}
    kinds = _KINDS_OF_MIPS if out["machine"].startswith("mips") else _KINDS
    for name, lines in out["net"].items():
        for line in lines:
            words = line.split()
            if name == "netlink":
                row, inode = ["netlink", None, int(words[1])], words[9]
            elif name == "packet":
                row, inode = ["packet", kinds[int(words[2])]], words[8]
            elif name == "unix":
                connected, listens = words[5] == "03", int(words[3], 16) >> 16 & 1
                kind = kinds[int(words[4], 16)]
                state = 10 if listens else 1 if connected else 7
                row = ["unix", kind, 0, state if kind == "stream" else None]
                row += [words[7] if len(words) > 7 else "", 0]
                inode = words[6]
            else:
                kind, protocol = _OF_INET[name.rstrip("6")]
                family = "inet6" if name.endswith("6") else "inet"
                row = [family, kind, protocol, int(words[3], 16)]
                row += _end(words[1], out["order"]) + _end(words[2], out["order"])
                inode = words[9]
            if row not in truth.setdefault(inode, []):
                truth[inode].append(row)
    truth.pop("0", None)
    return truth


def check_sockets(out: dict[str, Any]) -> str:
    """All that was found is what /proc/net says; what was compared, as a table has it."""
    truth, found = _true(out), out["found"]
    assert isinstance(found, dict), (found, out["report"])
    compared: Counter[str] = Counter()
    for inode, (*seen, name) in found.items():
        # Its socket is another one each time it asks: it may be in neither listing.
        if inode not in truth and name == "udhcpc":
            continue
        rows = truth[inode]
        assert any(all(t is None or t == f for f, t in zip(seen, row)) for row in rows), (
            name,
            seen,
            rows,
        )
        compared[seen[0]] += 1
    # Those of the kernel itself are in no process; TCP has none that listen or are connected.
    missing = [row for inode, rows in truth.items() if inode not in found for row in rows]
    assert not [row for row in missing if row[1] == "stream"], missing
    states = {(s[0], s[1], s[3]) for s in found.values()}
    assert {("inet", "stream", 10), ("inet", "stream", 1)} <= states, states
    assert compared["inet"] >= 4 and compared["unix"] >= 1
    names = {s[4] for s in found.values() if s[0] == "unix"}
    assert "/dev/log" in names, names
    return f"{sum(compared.values())} equal"


def case_sockets(arch: str) -> dict[str, Any]:
    panda = boot(arch)
    return dict(in_guest(panda, lambda: look_at_sockets(panda)))


@pytest.mark.parametrize("arch", ["x86_64", "i386"])
def test_sockets(arch: str) -> None:
    out = run_case(case_sockets, arch)
    check_sockets(out)
    kinds = {tuple(s[:2]) for s in out["found"].values()}
    assert {("inet", "dgram"), ("inet6", "stream"), ("unix", "dgram"), ("packet", "dgram")} <= kinds
    assert {("netlink", "dgram"), ("inet", "raw"), ("inet6", "raw")} <= kinds


def case_not_confirmed() -> list[str]:
    """Nothing of a socket leads back to its file any more; and then it does."""
    panda = boot("i386")

    def work() -> list[str]:
        panda.run_serial_cmd("httpd -p 127.0.0.1:8080 -h /tmp; sleep 1")

        def look(cpu: Any) -> list[str]:
            def word(address: int) -> int:
                return int.from_bytes(panda.virtual_memory_read(cpu, address, 4), "little")

            def offset(field: str) -> int:
                found = re.search(rf"^{re.escape(field)}: (\d+) ", panda.os.report(), re.MULTILINE)
                assert found, field
                return int(found[1])

            def sockets() -> str:
                return repr(panda.os.process(pid).sockets())

            (pid,) = (p.pid for p in panda.os.processes() if p.name == "httpd")
            said = [sockets()]
            (file,) = (f for f in panda.os.process(pid).files() if f.path.startswith("socket:"))
            back = word(file.file + offset("file.private_data")) + offset("socket.sk") - 4
            assert word(back) == file.file
            panda.virtual_memory_write(cpu, back, (0xC1000000).to_bytes(4, "little"))
            panda.os.use_profile(None)  # which makes it look anew
            try:
                sockets()
            except IntrospectionError as error:
                said.append(str(error))
            panda.virtual_memory_write(cpu, back, file.file.to_bytes(4, "little"))
            said.append(sockets())
            return said

        return list(at_rest(panda, look))

    return list(in_guest(panda, work))


def test_what_is_not_confirmed_is_an_error() -> None:
    first, error, last = run_case(case_not_confirmed)
    assert "local=('127.0.0.1', 8080)" in first and "state=10" in first and last == first
    assert "cannot be made out" in error
