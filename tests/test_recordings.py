"""Files of recordings: reading and checking them, without a guest."""

from __future__ import annotations

import gzip
import io
import json
import re
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recording_files import pack

from pandalite import DamagedRecordingError, RecordingError
from pandalite import __main__ as command
from pandalite.recordings import (
    Entry,
    devices,
    existing,
    read_log,
    read_recording,
    recording_path,
    verify,
)
from pandalite.recordings.archive import Archive

PAGE = 4096

MANIFEST: dict[str, Any] = {
    "format": "pandalite-recording",
    "version": [3, 0],
    "id": "0b9a3c53-7a0a-4f4f-8f0a-3a0f2a6d1e11",
    "created": "2026-01-02T03:04:05.000006Z",
    "arch": "x86_64",
    "machine": "pc-i440fx-10.0",
    "cpu": "qemu64-x86_64-cpu",
    "byte_order": "little",
    "ram_size": 4 * PAGE,
    "core_version": "0.1.0",
    "qemu_version": "10.0.13",
    "args": ["pandalite", "-M", "pc", "-m", "16K"],
    "blocks": [{"name": "pc.ram", "size": 4 * PAGE}, {"name": "pc.rom", "size": PAGE}],
    "disks": [{"name": "ide0-hd0", "node": "#block1", "size": 1 << 20}],
    "ram_parts": 32,
}


# --- making recordings ---


def number(value: int) -> bytes:
    """LEB128."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def entry(kind: int, *fields: int | bytes) -> bytes:
    """Numbers, and bytes as they are."""
    return bytes([kind]) + b"".join(f if isinstance(f, bytes) else number(f) for f in fields)


def string(data: bytes) -> bytes:
    return number(len(data)) + data


def slice_of(
    instructions: int, calls: bytes = b"", pause: bytes = b"", steps: int = 0, ran: int = 1
) -> bytes:
    body = number(instructions) + number(steps) + number(ran) + b"\1\2\3\4" * ran
    body += string(calls) + pause
    return string(body)


def chunk_of(
    count: int, steps: int, counted: int, stepped: int, *slices: bytes, part: int = 1
) -> bytes:
    header = number(count) + number(steps) + number(counted) + number(stepped) + number(part)
    return header + (b"8 bytes." if part else b"") + b"".join(slices)


PACKET = entry(15, 1, string(b"net0"), string(b"abc"))
REGION = entry(8, string(b"/machine/unattached/io[0]"))
ENTRIES = b"".join(
    [
        REGION,
        entry(1, 3, 1, 0x3F8, 1 << 3, 0x60, b"\x77"),
        entry(5, 0, 100, string(b"written by a device")),
        entry(6, 0b101, 2, 1 << 40),
        entry(2, 2, 1, 0x3F9, 4 << 3, 0xFFFFFFFF, b"\x78"),
        entry(7, 0),
        entry(3, 1, 1, 0, 12345678),
        entry(4, 0, 2, string(b"random")),
        entry(11, 0, 0, 0x1000, 256, string(b"new")),
        entry(10, 1, 2, 1, 0, 0),
        entry(9, string(b"a CPU's state")),
        entry(12, 1),
        entry(13, 0, 1, 77, 3, 1 << 63, 0),
        entry(13, 1, 5, 6, 7),
        entry(13, 2),
        entry(13, 3, 24),
        entry(14, 4, string(b"ide0-hd0"), 512, 0x1000, 1024),
        entry(15, 1, string(b"net0"), string(b"a packet")),
        entry(19, 1),
        entry(18, 0, 200, string(b"hd"), 2, 4),
        entry(19, 0),
        entry(20, string(b"devices")),
        entry(21, string(b"ide0-hd0"), 512, 2, string(b"ab")),
        entry(21, string(b"ide0-hd0"), 1024, 3, string(b"")),
        entry(16, 0, string(b"serial0"), string(b"ls")),
        entry(3, 0, 1, 0, 1),
    ]
)
#: Calls in ENTRIES, and instructions before the last of them.
CALLS, MADE = 5, 6

CHUNKS = [
    chunk_of(0, 0, 20, 3, slice_of(0, ran=0), slice_of(20, ENTRIES, entry(6, 1, 0), 3)),
    chunk_of(20, 3, 1 << 24, 0, slice_of(1 << 24, entry(1, 9, 2, 1, 8, 0, b"\0")), part=0),
]
END: dict[str, Any] = {
    "instructions": 20 + (1 << 24),
    "steps": 3,
    "slices": 3,
    "crossings": CALLS + 1,
    "chunks": 2,
    "ram_digest": "0123456789abcdef",
}
#: Pages 0 and 2 of block 0, and page 0 of block 1, which is like the one before.
RAM = number(3) + bytes([0, 0, 0, 0, 2, 0, 1, 0, 1]) + b"a" * PAGE + b"b" * PAGE
STATE = string(b"QEVM\0\0\0\3rest") + number(0)


def members(**changes: Any) -> dict[str, bytes]:
    """The members of a recording; facts can be changed."""
    return {
        "manifest.json": json.dumps({**MANIFEST, **changes}).encode(),
        "state": STATE,
        "ram/000000": RAM,
        "log/000000": CHUNKS[0],
        "log/000001": CHUNKS[1],
        "end.json": json.dumps(END).encode(),
    }


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Write a recording."""

    def write(parts: Any = None, name: str = "x.plrec") -> Path:
        path = tmp_path / name
        path.write_bytes(parts if isinstance(parts, bytes) else pack(parts or members()))
        return path

    return write


# --- reading ---


def test_facts(make: Callable[..., Path]) -> None:
    path = make()
    found = read_recording(path.with_suffix(""))
    assert found.path == path
    assert found.version == (3, 0)
    assert found.complete
    assert (found.arch, found.machine, found.cpu) == tuple(
        MANIFEST[key] for key in ("arch", "machine", "cpu")
    )
    assert found.args == tuple(MANIFEST["args"])
    assert (found.instructions, found.slices, found.crossings) == (20 + (1 << 24), 3, 6)
    assert found.chunks == 2
    assert found.file_size == path.stat().st_size
    assert 0 < found.state_bytes + found.ram_bytes + found.log_bytes < found.file_size
    assert found.blocks[1].name == "pc.rom"
    assert found.disks[0].size == 1 << 20
    assert json.loads(json.dumps(found.as_dict()))["path"] == str(path)


def test_zip_programs_can_read_it(make: Callable[..., Path]) -> None:
    import zipfile

    with zipfile.ZipFile(make()) as archive:
        assert archive.testzip() is None
        assert archive.read("log/000001") == CHUNKS[1]


def test_older_manifest(make: Callable[..., Path]) -> None:
    """Facts that came later may be missing."""
    old = {k: v for k, v in MANIFEST.items() if k not in ("disks", "byte_order")}
    parts = {**members(), "manifest.json": json.dumps(old).encode()}
    found = read_recording(make(parts))
    assert found.disks == ()
    assert found.byte_order == ""
    assert not found.devices


def test_older_major(make: Callable[..., Path]) -> None:
    for version in ((1, 0), (2, 0)):
        assert read_recording(make(members(version=list(version)))).version == version


def test_newer_minor(make: Callable[..., Path]) -> None:
    """It has more facts, and is read."""
    assert read_recording(make(members(version=[1, 9], more="facts"))).version == (1, 9)


def test_newer_major(make: Callable[..., Path]) -> None:
    path = make(members(version=[4, 0], core_version="9.1"))
    for read in (read_recording, verify):
        with pytest.raises(RecordingError, match=r"has format 4\.0, .* up to 3: .* pandalite 9\.1"):
            read(path)


@pytest.mark.parametrize("version", [None, [], [1], ["1", 0], [1.0, 0], [True, 0], 1])
def test_no_version(make: Callable[..., Path], version: Any) -> None:
    with pytest.raises(RecordingError, match="is no recording of pandalite"):
        read_recording(make(members(version=version)))


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x05\x06" + bytes(18), pack([("x", b"y")])])
def test_no_recording(make: Callable[..., Path], content: bytes) -> None:
    with pytest.raises(RecordingError, match="is no recording of pandalite"):
        read_recording(make(content))


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff", b'"text"', b"[" * 100000])
@pytest.mark.parametrize("name", ["manifest.json", "end.json"])
def test_bad_json(make: Callable[..., Path], name: str, text: bytes) -> None:
    with pytest.raises(DamagedRecordingError, match=name) as caught:
        read_recording(make({**members(), name: text}))
    assert caught.value.member == name


@pytest.mark.parametrize(
    "changes",
    [
        {"id": 1},
        {"ram_size": "big"},
        {"ram_size": -1},
        {"args": "-M pc"},
        {"args": [1]},
        {"blocks": None},
        {"blocks": [[]]},
        {"blocks": [{"name": "x"}]},
        {"disks": [{}]},
        {"byte_order": None},
    ],
)
def test_bad_facts(make: Callable[..., Path], changes: dict[str, Any]) -> None:
    with pytest.raises(DamagedRecordingError, match=r"manifest\.json"):
        read_recording(make(members(**changes)))


# --- names ---


def test_names(tmp_path: Path, make: Callable[..., Path]) -> None:
    assert recording_path("a/b") == Path("a/b.plrec")
    assert recording_path("a.b") == Path("a.b.plrec")
    assert recording_path("b.plrec") == Path("b.plrec")
    assert recording_path("b.plrec.part") == Path("b.plrec.part")
    path = make()
    assert existing(path) == existing(tmp_path / "x") == path
    with pytest.raises(ValueError, match=r"no recording .*y\.plrec: record\(\) makes one"):
        existing(tmp_path / "y")
    make(name="y.plrec.part")
    with pytest.raises(ValueError, match=r"but .*y\.plrec\.part: it was cut off"):
        existing(tmp_path / "y")


# --- cut off ---


def test_cut_off_everywhere(make: Callable[..., Path]) -> None:
    """What there is can be read, wherever the end is; and no end is taken for another."""
    whole = pack(members())
    boundaries = [m.start() for m in re.finditer(b"PK\x03\x04", whole)]
    assert len(boundaries) == 6
    lengths = {20 + (1 << 24): 0, 20: 0, 0: 0}
    for size in range(len(whole)):
        path = make(whole[:size], "x.plrec.part")
        if size < boundaries[1]:
            with pytest.raises(RecordingError, match="no recording"):
                read_recording(path)
            continue
        found = read_recording(path)
        lengths[found.instructions] += 1
        assert found.complete == (size >= whole.index(b"PK\x01\x02"))
        assert found.crossings is None or found.complete
        if size < boundaries[2]:
            with pytest.raises(DamagedRecordingError, match="cut off before it began"):
                verify(path)
        else:
            assert verify(path).slices == found.slices
    assert all(lengths.values())


def test_rubbish_at_the_end(make: Callable[..., Path]) -> None:
    """Power was lost: the last block of the file is zeros."""
    whole = pack(members())
    at = [m.start() for m in re.finditer(b"PK\x03\x04", whole)]
    found = read_recording(make(whole[: at[4]] + bytes(4096)))
    assert not found.complete
    assert found.instructions == 20
    # But after the last member nothing but the directory can be.
    with pytest.raises(DamagedRecordingError):
        read_recording(make(whole[: whole.index(b"PK\x01\x02")] + bytes(4096)))


# --- damage ---


def check_damaged(path: Path, intact: bytes) -> None:
    """It is refused; or cut off in its directory; or unpacks to the same all the same."""
    try:
        verify(path)
    except RecordingError:
        return
    if not intact.startswith(path.read_bytes()):
        with Archive(path) as archive:
            assert {m.name: archive.read(m) for m in archive.members} == members()


def test_every_changed_byte_is_found(make: Callable[..., Path]) -> None:
    whole = pack(members())
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 0x10
        check_damaged(make(bytes(changed)), whole)


def test_every_lost_and_repeated_byte_is_found(make: Callable[..., Path]) -> None:
    whole = pack(members())
    for at in range(len(whole)):
        for changed in (whole[:at] + whole[at + 1 :], whole[:at] + b"!" + whole[at:]):
            check_damaged(make(changed), whole)


def test_place_of_the_damage(make: Callable[..., Path]) -> None:
    whole = bytearray(pack(members()))
    at = whole.index(b"ram/000000")
    whole[at + 12] ^= 1
    with pytest.raises(DamagedRecordingError, match=r"member ram/000000, at byte \d+: ") as caught:
        verify(make(bytes(whole)))
    assert caught.value.member == "ram/000000"
    assert caught.value.offset == at - 30
    assert caught.value.path.endswith("x.plrec")


def without(*names: str) -> dict[str, bytes]:
    return {k: v for k, v in members().items() if k not in names}


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        (without("manifest.json"), "no recording"),
        (without("state"), "state should be there"),
        (without("log/000000"), "there are 2 chunks, there are 1"),
        (without("end.json"), "there is no end.json"),
        ([*members().items(), ("more", b"")], "nothing should follow"),
        ([*members().items(), ("end.json", members()["end.json"])], "nothing should follow"),
        (dict(sorted(members().items())), "manifest.json should be there"),
        ({**members(), "state": b"\x80"}, "ends within a number"),
        ({**members(), "state": string(b"none")}, "state of QEMU's devices"),
    ],
)
def test_members(make: Callable[..., Path], parts: Any, reason: str) -> None:
    with pytest.raises(RecordingError, match=reason):
        verify(make(parts))


@pytest.mark.parametrize(
    ("ram", "reason"),
    [
        (RAM[:-1], "bytes of contents of 2 pages"),
        (RAM + b"!", "bytes of contents of 2 pages"),
        (number(1) + bytes([2, 0, 0]) + bytes(PAGE), "its page 0 is page 0 of block 2"),
        (number(1) + bytes([0, 4, 0]) + bytes(PAGE), "its page 0 is page 4 of block 0"),
        (number(2) + bytes([0, 1, 0, 0, 0, 0]) + bytes(2 * PAGE), "its page 1 is page 1"),
        (number(1) + bytes([0, 0, 1]), "like one 1 pages before"),
        (number(9), "ends within a number"),
        (b"\xff" * 11, "more than 64 bits"),
    ],
)
def test_ram(make: Callable[..., Path], ram: bytes, reason: str) -> None:
    with pytest.raises(DamagedRecordingError, match=reason) as caught:
        verify(make({**members(), "ram/000000": ram}))
    assert caught.value.member == "ram/000000"


@pytest.mark.parametrize(
    ("slices", "reason"),
    [
        ([slice_of(19)], "its slices have 19 instructions, its header says 20"),
        ([slice_of(20, steps=1)], "its slices have 1 steps, its header says 0"),
        ([slice_of(20, ran=2)], "the flags of the slice at byte .* are 2"),
        ([slice_of(20)[:-1]], "goes beyond its end"),
        ([string(number(20) + number(0) + b"\0" + number(50))], "calls of the slice"),
        ([slice_of(20, entry(3, 21, 0, 0, 0))], "has 20 instructions, but a call after 21"),
        ([slice_of(20, entry(1, 0, 1, 0, 8, 0, b"\0"))], "unknown region 1"),
        ([slice_of(20, b"", entry(3, 0, 0, 0, 0))], "while the CPU did not run"),
        ([slice_of(20, entry(5, 2, 0, string(b"x")))], "memory that is not there"),
        ([slice_of(20, entry(5, 1, PAGE, string(b"x")))], "memory that is not there"),
        ([slice_of(20, b"", entry(18, 0, 0, string(b""), 0, 1))], "packet that is not there"),
        ([slice_of(20, PACKET + entry(18, 0, 0, string(b""), 2, 2))], "packet that is not there"),
        ([slice_of(20, PACKET, entry(18, 0, 0, string(b""), 0, 1))], "packet that is not there"),
        ([slice_of(20, PACKET + entry(18, 1, PAGE - 1, string(b""), 0, 3))], "memory that is not"),
        ([slice_of(20, entry(21, string(b"d"), 0, 2, string(b"x")))], "has 1 bytes of 2"),
        ([slice_of(20, entry(19, 1))], "names an unknown device"),
        ([slice_of(20, entry(10, 0, 1, 0, 0, 0))], "about an unknown region"),
        ([slice_of(20, entry(6, 1 << 32))], "lines that no CPU has"),
        ([slice_of(20, entry(99))], "of an unknown kind 99"),
        ([slice_of(20, entry(13, 9))], "of an unknown kind 13"),
        ([slice_of(20, entry(5, 0, 0, number(9)))], "goes beyond its slice"),
        ([b"\x80"], "ends within a number"),
    ],
)
def test_log(make: Callable[..., Path], slices: list[bytes], reason: str) -> None:
    parts = {**members(), "log/000000": chunk_of(0, 0, 20, 0, *slices)}
    with pytest.raises(DamagedRecordingError, match=reason) as caught:
        verify(make(parts))
    assert caught.value.member == "log/000000"


def test_chunks_follow_each_other(make: Callable[..., Path]) -> None:
    parts = {**members(), "log/000001": chunk_of(21, 3, 0, 0)}
    with pytest.raises(DamagedRecordingError, match=r"begins after 21 .* ends after 20"):
        verify(make(parts))
    parts = {**members(), "log/000001": b"\0\0\0\0\1short"}
    with pytest.raises(DamagedRecordingError, match="ends within its header"):
        verify(make(parts))


@pytest.mark.parametrize("what", ["instructions", "steps", "slices", "crossings", "chunks"])
def test_counts_of_the_end(make: Callable[..., Path], what: str) -> None:
    parts = {**members(), "end.json": json.dumps({**END, what: END[what] + 1}).encode()}
    with pytest.raises(DamagedRecordingError, match=rf"says there are {END[what] + 1} {what}"):
        verify(make(parts))


def test_intact(make: Callable[..., Path]) -> None:
    found = verify(make())
    assert (found.members, found.pages, found.slices, found.crossings) == (6, 3, 3, CALLS + 1)


# --- PANDA's recordings ---


def rr2(instructions: int = 4711) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        for name, data in {
            "RRv2": b"",
            "snapshot": bytes(100000),
            "nondetlog": struct.pack("<Q", instructions) + bytes(1000),
            "capture.cmd": b"panda-system-i386 -m 128M\n",
            "sha1": b"...",
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


THEIRS = (
    r"is a PANDA 2\.9\.1 recording and cannot be replayed here \(4711 instructions, made with "
    r"`panda-system-i386 -m 128M`\)"
)


@pytest.mark.parametrize("file", ["x.rr2", "x", "x.plrec"])
def test_rr2(tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_bytes(rr2())
    for name in {"x", file}:
        if name == "x" and file == "x.plrec":
            continue
        for read in (read_recording, verify):
            with pytest.raises(RecordingError, match=THEIRS):
                read(tmp_path / name)


def test_rr2_is_damaged(tmp_path: Path) -> None:
    """It is recognised as long as its beginning is there."""
    whole = rr2()
    (tmp_path / "x.rr2").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RecordingError, match=r"is a PANDA 2\.9\.1 recording and cannot"):
        read_recording(tmp_path / "x")
    (tmp_path / "x.rr2").write_bytes(gzip.compress(b"something else"))
    with pytest.raises(ValueError, match="there is no recording"):
        read_recording(tmp_path / "x")


@pytest.mark.parametrize("name", ["x", "x-rr-snp", "x-rr-nondet.log"])
def test_loose_pair(tmp_path: Path, name: str) -> None:
    (tmp_path / "x-rr-nondet.log").write_bytes(struct.pack("<Q", 4711) + bytes(100))
    with pytest.raises(ValueError, match="there is no recording"):
        read_recording(tmp_path / name)
    (tmp_path / "x-rr-snp").write_bytes(b"QEVM")
    (tmp_path / "x-rr.cmd").write_bytes(b"panda-system-i386 -m 128M")
    with pytest.raises(RecordingError, match=THEIRS):
        read_recording(tmp_path / name)


# --- entries ---


def test_entries(make: Callable[..., Path]) -> None:
    found = list(read_log(make()))
    device = "/machine/unattached"
    read, memory = found[0], found[1]
    assert read == Entry(
        3, "read", device, {"region": "io[0]", "offset": 0x3F8, "size": 1, "value": 0x60}
    )
    assert memory.facts == {"block": "pc.ram", "offset": 100, "bytes": b"written by a device"}
    assert memory.device == "" and memory.instructions == 5
    shared = next(e for e in found if e.kind == "memory" and e.facts["offset"] == 200)
    assert shared.device == f"{device}/io[0]"
    assert shared.facts["bytes"] == b"hdpack"
    assert [e.device for e in found if e.kind in ("disk", "packet", "serial")] == [
        *("ide0-hd0", "net0", "serial0")
    ]
    assert [e.facts["bytes"] for e in found if e.kind == "data"] == [b"ab", bytes(3)]
    # What follows the last call is at the slice's end.
    assert [e.instructions for e in found if e.kind == "lines"] == [5, 6, 20]
    assert found[-1].instructions == 29


def test_devices(make: Callable[..., Path]) -> None:
    by_name = {d.name: d for d in devices(make())}
    assert by_name["/machine/unattached"].reads == 1
    assert by_name["/machine/unattached"].writes == 1
    assert by_name["/machine/unattached/io[0]"].memory_bytes == 6
    assert by_name["ide0-hd0"].received_bytes == 1024
    assert by_name["net0"].sent_bytes == len(b"a packet")


# --- the command ---


def test_command(make: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    path = make()
    assert command.main(["info", str(path)]) == 0
    said = capsys.readouterr().out
    assert "format 3.0, complete" in said
    assert f"{20 + (1 << 24)} instructions, 3 slices, 2 chunks" in said
    assert command.main(["info", "--json", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["args"] == MANIFEST["args"]
    assert command.main(["verify", str(path)]) == 0
    assert "6 members, 3 pages of RAM" in capsys.readouterr().out
    assert command.main(["info", "--devices", str(path)]) == 0
    assert "ide0-hd0" in capsys.readouterr().out
    assert command.main(["info", "--log", str(path)]) == 0
    assert "20 lines" in capsys.readouterr().out
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert command.main(["verify", str(path)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("pandalite verify: the recording ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("words", [["record"], ["record", "x"], ["replay"], ["info", "a", "b"]])
def test_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(words) == 2
    assert "usage:" in capsys.readouterr().err
