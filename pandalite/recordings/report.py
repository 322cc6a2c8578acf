"""What the core tells of a recording or replay, and how they fail."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, NamedTuple

from .._bindings.structs import PandaRrReport
from ..errors import RecordingError, ReplayDivergence

if TYPE_CHECKING:
    from .._bindings.loader import CoreLibrary


class Report(NamedTuple):
    """Facts about a recording or replay (C: ``PandaRrReport``)."""

    #: Instructions the guest executed in it.
    instructions: int
    #: A replay: instructions of the whole recording; 0 if it was cut off.
    total: int
    #: Calls of the CPU to devices.
    crossings: int
    #: Runs of the CPU between which devices did something.
    slices: int
    #: Size of the recording's file in bytes, when it has ended.
    file_size: int
    #: Seconds the guest stood still when the recording began.
    stall: float
    #: Digest of all RAM at the end; 0 before.
    ram_digest: int
    #: A replay: the recording was cut off by a crash or a full disk.
    cut_off: bool


def report(lib: CoreLibrary) -> Report:
    """Facts about the recording or replay that is made, or was made last."""
    facts = PandaRrReport()
    lib.panda_rr_report(ctypes.byref(facts))
    return Report(
        instructions=facts.instructions,
        total=facts.total,
        crossings=facts.crossings,
        slices=facts.slices,
        file_size=facts.file_size,
        stall=facts.stall_ns / 1e9,
        ram_digest=facts.ram_digest,
        cut_off=bool(facts.cut_off),
    )


def failure(lib: CoreLibrary) -> RecordingError:
    """Why the recording ended before it was to end."""
    text = (lib.panda_record_failure() or b"").decode(errors="replace")
    return RecordingError(text)


def divergence(lib: CoreLibrary) -> RecordingError:
    """Why the replay ended before the recording's end."""
    facts = PandaRrReport()
    lib.panda_rr_report(ctypes.byref(facts))
    text = (lib.panda_rr_divergence() or b"").decode(errors="replace")
    return ReplayDivergence(
        f"the replay differs from the recording after {facts.diverged_at} instructions, at "
        f"pc {facts.diverged_pc:#x}: {text}",
        facts.diverged_at,
        facts.diverged_pc,
        text,
    )
