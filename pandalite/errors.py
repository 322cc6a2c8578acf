"""The exceptions pandalite raises.

Every exception carries a message that gives the reason and, where there is
one, the remedy. All derive from :class:`PandaError`; where PyPANDA raises a
built-in type, ours derives from that type too, so existing handlers keep
working.
"""

from __future__ import annotations

__all__ = [
    "BlockingCallError",
    "CallbackSignatureError",
    "ConsoleError",
    "CoreLibraryError",
    "DamagedRecordingError",
    "GuestCoreError",
    "GuestFault",
    "GuestMemoryError",
    "GuestPanic",
    "GuestReset",
    "GuestShutdown",
    "ImageError",
    "IntrospectionError",
    "MachineError",
    "PandaError",
    "PluginError",
    "RecordingError",
    "ReplayDivergence",
    "SnapshotError",
    "SnapshotMismatchError",
    "StateError",
    "TimeoutExpired",
    "UnknownArchitectureError",
    "UnknownImageError",
    "UnknownSnapshotError",
    "UnsupportedFeatureError",
]


class PandaError(Exception):
    """Base of everything pandalite raises on purpose."""


class CoreLibraryError(PandaError, RuntimeError):
    """The core library of an architecture is missing or cannot be loaded."""


class UnknownArchitectureError(PandaError, ValueError):
    """There is no guest architecture of that name."""


class UnsupportedFeatureError(PandaError, NotImplementedError):
    """A documented PyPANDA feature that pandalite does not have yet."""


class PluginError(PandaError, RuntimeError):
    """A plugin cannot be loaded, or its arguments are wrong."""


class MachineError(PandaError):
    """QEMU refused to create the machine; the message holds QEMU's words."""


class GuestCoreError(PandaError):
    """QEMU gave up while the guest ran (it called exit() or abort())."""


class GuestPanic(PandaError):
    """The guest's kernel panicked."""


class GuestShutdown(PandaError):
    """The guest powered itself off while it was being run."""


class GuestReset(PandaError):
    """The guest rebooted although ``-no-reboot`` was given."""


class GuestFault(PandaError):
    """A program on a machine without devices cannot go on; its CPU stands before it.

    Attributes:
        kind: ``"fetch"``, ``"read"`` or ``"write"`` where there is no memory, or
            ``"exception"``: one for which the program has set up no handler.
        pc: address of the instruction.
        address: what it accessed; of an exception, where its handler would be.
        size: bytes it accessed; 0 of an exception.
        exception: QEMU's number of the exception; None of the other kinds.
        instructions: executed by the ``run_until()`` that it ended; else None.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: str,
        pc: int,
        address: int,
        size: int = 0,
        exception: int | None = None,
    ) -> None:
        """Note what happened and where."""
        super().__init__(message)
        self.kind = kind
        self.pc = pc
        self.address = address
        self.size = size
        self.exception = exception
        self.instructions: int | None = None


class ImageError(PandaError):
    """A disk image is missing, damaged or of the wrong format."""


class UnknownImageError(ImageError, RuntimeError):
    """The catalogue has no guest image of that name."""


class SnapshotError(PandaError):
    """A snapshot could not be saved, loaded or deleted."""


class UnknownSnapshotError(SnapshotError, ValueError):
    """The image holds no snapshot of that name."""


class SnapshotMismatchError(SnapshotError, RuntimeError):
    """The snapshot was made by a machine of another shape, e.g. RAM size."""


class RecordingError(PandaError, RuntimeError):
    """A recording cannot be made, written, read or replayed."""


class DamagedRecordingError(RecordingError):
    """A recording is not what was written.

    Attributes:
        path: its file.
        member: name of the part of the file that is damaged; "" if that is not known.
        offset: where in the file that part begins.
        problem: what is wrong with it, in words.
    """

    def __init__(self, path: str, member: str, offset: int, problem: str) -> None:
        where = f"its member {member}, at byte {offset}" if member else f"at byte {offset}"
        super().__init__(
            f"the recording {path} is damaged, {where}: {problem}. Take it from where it was "
            "copied from, or record again."
        )
        self.path = path
        self.member = member
        self.offset = offset
        self.problem = problem


class ReplayDivergence(RecordingError):
    """A replay did something else than the recording.

    Attributes:
        instructions: executed before it was noticed; the cause is between here
            and the event before.
        pc: address of the next instruction.
        difference: what differed, in words.
    """

    def __init__(self, message: str, instructions: int, pc: int, difference: str) -> None:
        super().__init__(message)
        self.instructions = instructions
        self.pc = pc
        self.difference = difference


class GuestMemoryError(PandaError, ValueError):
    """Guest memory at that address cannot be read or written."""


class IntrospectionError(PandaError, LookupError):
    """The guest's operating system does not show what was asked for, or is not found."""


class StateError(PandaError, RuntimeError):
    """The call is not allowed in the present state or from this thread."""


class BlockingCallError(StateError, AssertionError):
    """A blocking function was called where it would block the machine."""


class ConsoleError(PandaError, RuntimeError):
    """The guest's serial console is not there, or was closed."""


class TimeoutExpired(PandaError):
    """The guest did not answer in time; the message holds what it did say."""


class CallbackSignatureError(PandaError, TypeError):
    """A callback takes another number of arguments than its kind passes."""
