"""Check a recording's file from its first byte to its last, without a replay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike

from .archive import Archive
from .facts import END, MANIFEST, Recording, facts_of, open_archive
from .log import Malformed, Totals, check_chunk, number, read_chunk

__all__ = ["Verdict", "verify"]

_PAGE = 4096


@dataclass(frozen=True)
class Verdict:
    """What was checked of a recording that is as it was written."""

    recording: Recording
    members: int
    #: Pages of RAM that are not zero.
    pages: int
    #: What the log's chunks hold together.
    slices: int
    crossings: int


def verify(name: str | PathLike[str]) -> Verdict:
    """Check all of a recording: checksums, order, that the log is well-formed, counts.

    Raises:
        ValueError: there is no such recording.
        RecordingError: it is none of pandalite's, or a newer version is needed.
        DamagedRecordingError: it is not what was written; says where.
    """
    with open_archive(name) as archive:
        recording = facts_of(archive)
        _check_order(archive)
        _check_state(archive)
        pages = _check_ram(archive, [b.size for b in recording.blocks])
        totals = _check_log(archive, recording)
        if recording.complete:
            _check_counts(archive, recording, totals)
        return Verdict(recording, len(archive.members), pages, totals.slices, totals.crossings)


def _check_order(archive: Archive) -> None:
    """The members are all there, each once, in the order they are written in."""
    expected = [MANIFEST, "state"]
    expected += [f"ram/{i:06}" for i in range(len(archive.under("ram")))]
    expected += [f"log/{i:06}" for i in range(len(archive.under("log")))]
    expected.append(END)
    for member, wanted in zip(archive.members, expected):
        if member.name != wanted:
            raise archive.damage(member, f"{wanted} should be there")
    if len(archive.members) > len(expected):
        raise archive.damage(archive.members[len(expected)], "nothing should follow end.json")
    if len(archive.members) < len(expected) and not archive.cut_off:
        raise archive.damage(None, "there is no end.json", archive.members[-1].end)
    if len(archive.members) < 2:
        raise archive.damage(None, "it was cut off before it began", archive.members[-1].end)


def _check_state(archive: Archive) -> None:
    member = archive.members[1]
    data = archive.read(member)
    try:
        size, at = number(data, 0)
    except Malformed as error:
        raise archive.damage(member, str(error)) from None
    if at + size > len(data) or data[at : at + 4] != b"QEVM":
        raise archive.damage(member, "it does not hold the state of QEMU's devices")


def _check_ram(archive: Archive, block_sizes: Sequence[int]) -> int:
    pages = 0
    # The last page of each block that was given.
    last = [-1] * len(block_sizes)
    for member in archive.under("ram"):
        data = archive.read(member)
        try:
            pages = _check_pages(data, pages, last, block_sizes)
        except Malformed as error:
            raise archive.damage(member, str(error)) from None
    return pages


def _check_pages(data: bytes, pages: int, last: list[int], block_sizes: Sequence[int]) -> int:
    """Check a member of RAM; returns how many pages there are up to its end."""
    count, at = number(data, 0)
    contents = block = page = 0
    for index in range(count):
        before = block
        block, at = number(data, at)
        gap, at = number(data, at)
        ago, at = number(data, at)
        page = page + gap if index and block == before else gap
        if block >= len(block_sizes) or page * _PAGE >= block_sizes[block] or page <= last[block]:
            raise Malformed(f"its page {index} is page {page} of block {block}")
        if ago > pages:
            raise Malformed(f"its page {index} is like one {ago} pages before")
        last[block] = page
        contents += not ago
        pages += 1
    if len(data) - at != contents * _PAGE:
        raise Malformed(f"there are {len(data) - at} bytes of contents of {contents} pages")
    return pages


def _check_log(archive: Archive, recording: Recording) -> Totals:
    """The chunks are well-formed, and each begins where the one before ended."""
    sizes = [b.size for b in recording.blocks]
    all_of_it = Totals()
    for member in archive.under("log"):
        chunk = read_chunk(archive, member)
        if (chunk.count, chunk.steps) != (all_of_it.instructions, all_of_it.steps):
            raise archive.damage(
                member,
                f"it begins after {chunk.count} instructions, the one before ends after "
                f"{all_of_it.instructions}",
            )
        try:
            found = check_chunk(chunk, sizes, all_of_it.regions)
        except Malformed as error:
            raise archive.damage(member, str(error)) from None
        all_of_it.add(found)
    return all_of_it


def _check_counts(archive: Archive, recording: Recording, totals: Totals) -> None:
    """What end.json says is what is there."""
    member = archive.find(END)
    stated = {
        "instructions": (recording.instructions, totals.instructions),
        "steps": (recording.steps, totals.steps),
        "slices": (recording.slices, totals.slices),
        "crossings": (recording.crossings, totals.crossings),
    }
    for what, (said, found) in stated.items():
        if said is not None and said != found:
            raise archive.damage(member, f"it says there are {said} {what}, there are {found}")
