"""System calls as text, as strace writes them.

A :class:`Decoder` makes the text of a call in two steps, because what a call reads is in
memory when it is made and what it writes is there when it has returned::

    call = decoder.enter(number, args, read)
    ...
    text = decoder.leave(call, result, read)       # 'openat(AT_FDCWD, "/etc/passwd", O_RDONLY) = 3'

``read(address, size)`` gives the guest's memory, or None. What is not known to be more is
printed by its type: numbers, addresses, strings.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple, Optional

from . import constants
from .numbers import Prototype, calls, prototypes, public_names

__all__ = ["Call", "Decoder", "quote"]

#: Memory of the guest at an address, of a size; None if it cannot be read.
Reader = Callable[[int, int], Optional[bytes]]

#: How much of a string is printed.
LIMIT = 32
_PATH_MAX = 4096

#: Of the auxiliary vector: the name of the file that was executed.
_AT_EXECFN = 31

_ESCAPES = {9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 34: '\\"', 92: "\\\\"}

#: Results of the kernel's own that programs never see.
_RESTARTS = {
    512: "ERESTARTSYS (To be restarted if SA_RESTART is set)",
    513: "ERESTARTNOINTR (To be restarted)",
    514: "ERESTARTNOHAND (To be restarted if no handler)",
    516: "ERESTART_RESTARTBLOCK (Interrupted by signal)",
}


def quote(data: bytes, hexadecimal: bool = False) -> str:
    """Bytes between quotation marks, with escapes."""
    if hexadecimal:
        return '"' + "".join(f"\\x{byte:02x}" for byte in data) + '"'
    out = []
    for i, byte in enumerate(data):
        if byte in _ESCAPES:
            out.append(_ESCAPES[byte])
        elif 32 <= byte < 127:
            out.append(chr(byte))
        else:
            digit = i + 1 < len(data) and 48 <= data[i + 1] <= 57
            out.append(f"\\{byte:03o}" if digit else f"\\{byte:o}")
    return '"' + "".join(out) + '"'


class Call:
    """A call that is being decoded."""

    def __init__(
        self, decoder: Decoder, number: int, prototype: Prototype, args: Sequence[int]
    ) -> None:
        self.decoder = decoder
        self.abi: str = decoder.abi
        self.number = number
        self.prototype = prototype
        self.name = decoder.public.get(number, prototype.name)
        self.args = list(args)
        #: Set when it has returned.
        self.result: int | None = None
        #: The text of each argument; None: to be made when it has returned.
        self.texts: list[str | None] = []
        self.read: Reader = _nothing

    # ---- memory ----

    def word(self, address: int) -> int | None:
        """The long at an address."""
        width = self.decoder.word
        data = self.read(address, width)
        if data is None or len(data) < width:
            return None
        return int.from_bytes(data, self.decoder.order)  # type: ignore[arg-type]

    def unpack(self, layout: str, address: int) -> tuple[int, ...] | None:
        """Numbers at an address, in the guest's order (``struct``'s letters)."""
        layout = self.decoder.prefix + layout.replace(
            "L", "Q" if self.decoder.word == 8 else "I"
        ).replace("l", "q" if self.decoder.word == 8 else "i")
        data = self.read(address, struct.calcsize(layout))
        if data is None or len(data) < struct.calcsize(layout):
            return None
        return struct.unpack(layout, data)

    def string(self, address: int, limit: int) -> bytes | None:
        """The bytes up to a NUL or the limit."""
        found = b""
        while len(found) < limit:
            size = min(limit - len(found), 4096 - (address + len(found)) % 4096, 256)
            part = self.read(address + len(found), size)
            if part is None:
                return found or None
            end = part.find(b"\0")
            if end >= 0:
                return found + part[:end]
            found += part
        return found

    @property
    def failed(self) -> bool:
        """Whether it has returned an error."""
        return self.result is not None and -4095 <= self.result < 0


class Formatter(NamedTuple):
    """How an argument is printed."""

    text: Callable[[Call, int], str]
    #: The call writes what it points to: print that when it has returned.
    out: bool = False


def _nothing(_address: int, _size: int) -> bytes | None:
    return None


# ---- the simple ones ----


def address(call: Call, value: int) -> str:
    """A pointer that is not looked at."""
    return "NULL" if value == 0 else hex(value)


def number(_call: Call, value: int) -> str:
    """A number as it is."""
    return str(value)


def signed(call: Call, value: int) -> str:
    """A long with a sign."""
    bits = call.decoder.word * 8
    return str(value - (1 << bits) if value >> (bits - 1) else value)


def int_32(_call: Call, value: int) -> str:
    """The lower half, with a sign."""
    value &= 0xFFFFFFFF
    return str(value - (1 << 32) if value >> 31 else value)


def hexadecimal(_call: Call, value: int) -> str:
    """A number in hexadecimal; 0 is 0."""
    return hex(value) if value else "0"


def octal(_call: Call, value: int) -> str:
    """Permissions: three digits at least."""
    return f"0{value & 0xFFFF:02o}" if value else "000"


def mode(_call: Call, value: int) -> str:
    """A file's type and permissions."""
    return file_mode(value & 0xFFFF)


def dirfd(_call: Call, value: int) -> str:
    """A directory's file descriptor."""
    value &= 0xFFFFFFFF
    value -= 1 << 32 if value >> 31 else 0
    return "AT_FDCWD" if value == -100 else str(value)


def flag_text(value: int, known: dict[str, int], unknown: str, zero: str = "0") -> str:
    """Names of the bits of a number."""
    if not value:
        return next((name for name, bits in known.items() if not bits), zero)
    words = []
    for name, bits in known.items():
        if bits and value & bits == bits:
            words.append(name)
            value &= ~bits
    if value:
        words.append(hex(value) if words else f"{value:#x} /* {unknown}_??? */")
    return "|".join(words)


def flags(table: str, unknown: str, zero: str = "0", bits: int = 32) -> Formatter:
    """A number of flags."""

    def text(call: Call, value: int) -> str:
        return flag_text(value & ((1 << bits) - 1), constants.table(table, call.abi), unknown, zero)

    return Formatter(text)


def choice_text(call: Call, value: int, table: str, unknown: str) -> str:
    """The name of a number."""
    for name, known in constants.table(table, call.abi).items():
        if value == known:
            return name
    return f"{value:#x} /* {unknown}_??? */"


def choice(table: str, unknown: str) -> Formatter:
    """One of several numbers."""
    return Formatter(lambda call, value: choice_text(call, value & 0xFFFFFFFF, table, unknown))


def _plain(text: Callable[[Call, int], str], out: bool = False) -> Formatter:
    return Formatter(text, out)


# ---- strings ----


def path(call: Call, value: int) -> str:
    """A path, in full."""
    if not value:
        return "NULL"
    found = call.string(value, _PATH_MAX)
    return hex(value) if found is None else quote(found)


def string(call: Call, value: int) -> str:
    """A string; its beginning, if it is long."""
    if not value:
        return "NULL"
    found = call.string(value, LIMIT + 1)
    if found is None:
        return hex(value)
    return quote(found[:LIMIT]) + ("..." if len(found) > LIMIT else "")


def memory(call: Call, value: int, size: int, hexadecimal: bool = False) -> str:
    """Bytes; their beginning, if there are many."""
    if not value:
        return "NULL"
    found = call.read(value, min(size, LIMIT)) if size else b""
    if found is None:
        return hex(value)
    return quote(found, hexadecimal) + ("..." if size > LIMIT else "")


def written(index: int) -> Formatter:
    """Bytes that the call reads; argument ``index`` says how many."""
    return Formatter(lambda call, value: memory(call, value, call.args[index]))


def _returned(call: Call, value: int, hexadecimal: bool = False) -> str:
    if call.result is None or call.result < 0:
        return address(call, value)
    return memory(call, value, call.result, hexadecimal)


def strings(call: Call, value: int) -> str:
    """An array of strings."""
    if not value:
        return "NULL"
    width = call.decoder.word
    words = []
    for i in range(LIMIT + 1):
        at = call.word(value + i * width)
        if at is None:
            return hex(value)
        if not at:
            break
        words.append("..." if i == LIMIT else string(call, at))
    return f"[{', '.join(words)}]"


def environment(call: Call, value: int) -> str:
    """The number of strings of an array."""
    if not value:
        return "NULL"
    count = 0
    while count < 65536:
        at = call.word(value + count * call.decoder.word)
        if at is None:
            return hex(value)
        if not at:
            break
        count += 1
    return f"{value:#x} /* {count} var{'' if count == 1 else 's'} */"


def link_text(call: Call, value: int) -> str:
    """What readlink() has read."""
    return _returned(call, value)


# ---- files ----

_TYPES = {
    0o140000: "S_IFSOCK",
    0o120000: "S_IFLNK",
    0o100000: "S_IFREG",
    0o060000: "S_IFBLK",
    0o040000: "S_IFDIR",
    0o020000: "S_IFCHR",
    0o010000: "S_IFIFO",
}


def file_mode(value: int) -> str:
    """A file's type and permissions."""
    words = [_TYPES[value & 0o170000]] if value & 0o170000 in _TYPES else []
    for bit, name in ((0o4000, "S_ISUID"), (0o2000, "S_ISGID"), (0o1000, "S_ISVTX")):
        if value & bit:
            words.append(name)
    return "|".join([*words, f"0{value & 0o777:02o}" if value & 0o777 else "000"])


def stat(call: Call, value: int) -> str:
    """A struct stat."""
    if call.failed:
        return address(call, value)
    found: tuple[int, int, int] | None = None
    if call.abi == "x86_64":
        row = call.unpack("QQQIIIIQq", value)
        found = (row[3], row[7], row[8]) if row else None
    elif call.abi in ("aarch64", "riscv64"):
        row = call.unpack("QQIIIIQQq", value)
        found = (row[2], row[6], row[8]) if row else None
    elif call.abi in ("ppc64",):
        row = call.unpack("QQQIIIIQq", value)
        found = (row[3], row[7], row[8]) if row else None
    elif call.abi == "i386" and call.name.endswith("64"):
        row = call.unpack("QIIIIIIQIq", value)
        found = (row[3], row[7], row[9]) if row else None
    elif call.abi == "arm" and call.name.endswith("64"):
        row = call.unpack("QIIIIIIQIIq", value)
        found = (row[3], row[7], row[10]) if row else None
    if found is None:
        return address(call, value)
    kind, device, size = found
    major = (device >> 8) & 0xFFF | (device >> 32) & ~0xFFF
    minor = device & 0xFF | (device >> 12) & ~0xFF
    text = f"st_size={size}"
    if kind & 0o170000 in (0o020000, 0o060000):
        text = f"st_rdev=makedev({major:#x}, {minor & 0xFFFFFFFF:#x})"
    return f"{{st_mode={file_mode(kind)}, {text}, ...}}"


def statx(call: Call, value: int) -> str:
    """A struct statx."""
    row = None if call.failed else call.unpack("IIQIIIHHQQ", value)
    if row is None:
        return address(call, value)
    mask = flag_text(row[0], constants.table("statx", call.abi), "STATX")
    attributes = flag_text(row[2], constants.table("stx_attributes", call.abi), "STATX_ATTR")
    return (
        f"{{stx_mask={mask}, stx_attributes={attributes}, "
        f"stx_mode={file_mode(row[6])}, stx_size={row[9]}, ...}}"
    )


def open_flags(call: Call, value: int) -> str:
    """How a file is opened."""
    how = ("O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE")[value & 3]
    rest = value & 0xFFFFFFFC
    if not rest:
        return how
    return f"{how}|{flag_text(rest, constants.table('open', call.abi), 'O')}"


def _creates(call: Call, flag_word: int) -> bool:
    known = constants.table("open", call.abi)
    return bool(flag_word & known["O_CREAT"]) or (
        flag_word & known["O_TMPFILE"] == known["O_TMPFILE"]
    )


def pipe(call: Call, value: int) -> str:
    """Two file descriptors."""
    row = None if call.failed else call.unpack("ii", value)
    return address(call, value) if row is None else f"[{row[0]}, {row[1]}]"


def entries(call: Call, value: int) -> str:
    """The number of a directory's entries."""
    if call.result is None or call.result < 0:
        return address(call, value)
    data = call.read(value, call.result) or b""
    place = count = 0
    while place + 19 <= len(data):
        length = struct.unpack_from(call.decoder.prefix + "H", data, place + 16)[0]
        if not length:
            break
        place += length
        count += 1
    return f"{value:#x} /* {count} entr{'y' if count == 1 else 'ies'} */"


def statfs(call: Call, value: int) -> str:
    """A struct statfs."""
    row = None if call.failed or call.decoder.word != 8 else call.unpack("QQQQQQQIIQQQ", value)
    if row is None:
        return address(call, value)
    kind = choice_text(call, row[0], "statfs", "???")
    names = ("f_bsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree")
    fields = [f"f_type={kind}", *(f"{name}={n}" for name, n in zip(names, row[1:]))]
    fields += [
        f"f_fsid={{val=[{row[7]:#x}, {row[8]:#x}]}}".replace("0x0", "0"),
        f"f_namelen={row[9]}",
        f"f_frsize={row[10]}",
        f"f_flags={flag_text(row[11], constants.table('statfs_flags', call.abi), 'ST')}",
    ]
    return "{" + ", ".join(fields) + "}"


def fcntl_arg(call: Call, value: int) -> str | None:
    """What fcntl() is to do; None: the command has no argument."""
    names = {v: k for k, v in constants.table("fcntl", call.abi).items()}
    command = names.get(call.args[1], "")
    if command in ("F_GETFD", "F_GETFL", "F_GETOWN", "F_GETSIG", "F_GETPIPE_SZ", "F_GET_SEALS"):
        return None
    if command == "F_SETFD":
        return flag_text(value, constants.table("fd", call.abi), "FD")
    if command == "F_SETFL":
        return open_flags(call, value)
    if command.startswith("F_DUPFD"):
        return str(value)
    if "LK" in command:
        return address(call, value)
    return hexadecimal(call, value)


# ---- memory, limits, time ----


def limit_text(value: int) -> str:
    """A resource limit."""
    if value == (1 << 64) - 1:
        return "RLIM64_INFINITY"
    return f"{value // 1024}*1024" if value > 1024 and not value % 1024 else str(value)


def rlimit64(call: Call, value: int) -> str:
    """A struct rlimit64."""
    if not value:
        return "NULL"
    row = None if call.failed else call.unpack("QQ", value)
    if row is None:
        return hex(value)
    return f"{{rlim_cur={limit_text(row[0])}, rlim_max={limit_text(row[1])}}}"


def timespec(call: Call, value: int) -> str:
    """A struct timespec."""
    if not value:
        return "NULL"
    wide = "64" in call.name or call.decoder.word == 8
    row = None if call.failed else call.unpack("qq" if wide else "ii", value)
    return hex(value) if row is None else f"{{tv_sec={row[0]}, tv_nsec={row[1]}}}"


def timespec_in(call: Call, value: int) -> str:
    """A struct timespec that the call reads."""
    return timespec(call, value)


def timespec_left(call: Call, value: int) -> str:
    """What is left of the time, if a signal came."""
    if call.result in (0, None) or not value:
        return address(call, value)
    wide = "64" in call.name or call.decoder.word == 8
    row = call.unpack("qq" if wide else "ii", value)
    if row is None or call.result not in (-4, -516):
        return hex(value)
    return f"{{tv_sec={row[0]}, tv_nsec={row[1]}}}"


def timeval(call: Call, value: int) -> str:
    """A struct timeval."""
    if not value:
        return "NULL"
    row = None if call.failed else call.unpack("ll", value)
    return hex(value) if row is None else f"{{tv_sec={row[0]}, tv_usec={row[1]}}}"


def timespecs(call: Call, value: int) -> str:
    """The two times of utimensat()."""
    if not value:
        return "NULL"
    row = call.unpack("llll", value)
    if row is None:
        return hex(value)
    special = {0x3FFFFFFF: "UTIME_NOW", 0x3FFFFFFE: "UTIME_OMIT"}
    words = [
        special.get(nanoseconds) or f"{{tv_sec={seconds}, tv_nsec={nanoseconds}}}"
        for seconds, nanoseconds in (row[:2], row[2:])
    ]
    return f"[{', '.join(words)}]"


# ---- signals and processes ----


def signal(call: Call, value: int) -> str:
    """A signal."""
    return signal_text(call.abi, value & 0xFFFFFFFF)


def signal_text(abi: str, value: int) -> str:
    """The name of a signal."""
    known = constants.signals(abi)
    if value in known:
        return f"SIG{known[value]}"
    if 32 <= value <= 64:
        return "SIGRTMIN" if value == 32 else f"SIGRT_{value - 32}"
    return str(value)


def sigset(call: Call, value: int) -> str:
    """A set of signals."""
    if not value:
        return "NULL"
    if call.failed:
        return hex(value)
    wide = call.abi.startswith("mips")
    row = call.unpack("LL" if call.decoder.word == 4 or wide else "L", value)
    return hex(value) if row is None else sigset_text(call, row)


def sigset_text(call: Call, words: Sequence[int]) -> str:
    """The names of the signals of a set; of those that are missing, if these are fewer."""
    bits = 0
    for i, word in enumerate(words):
        bits |= word << (i * call.decoder.word * 8)
    present = [n for n in range(1, 65) if bits >> (n - 1) & 1]
    inverted = len(present) > 42
    if inverted:
        present = [n for n in range(1, 65) if n not in present]
    names = [signal_text(call.abi, n)[3:] for n in present]
    return f"{'~' if inverted else ''}[{' '.join(names)}]"


def sigaction(call: Call, value: int) -> str:
    """What is done at a signal."""
    if not value:
        return "NULL"
    if call.failed:
        return hex(value)
    restorer: int | None = None
    if call.abi.startswith("mips"):
        row = call.unpack("ILLL", value) if call.decoder.word == 4 else None
        if row is None:
            return hex(value)
        how, handler, mask = row[0], row[1], row[2:]
    elif call.abi in ("aarch64", "riscv64") or call.abi.startswith("ppc"):
        restores = call.abi != "riscv64"
        row = call.unpack("LLLL" if restores else "LLL", value)
        if row is None:
            return hex(value)
        handler, how, mask = row[0], row[1], row[-1:]
    else:
        count = 8 // call.decoder.word
        row = call.unpack("LLL" + "L" * count, value)
        if row is None:
            return hex(value)
        handler, how, restorer, mask = row[0], row[1], row[2], row[3:]
    known = constants.table("sa", call.abi)
    field = "sa_sigaction" if how & known["SA_SIGINFO"] and handler > 1 else "sa_handler"
    name = {0: "SIG_DFL", 1: "SIG_IGN"}.get(handler, hex(handler))
    text = f"{{{field}={name}, sa_mask={sigset_text(call, mask)}"
    text += f", sa_flags={flag_text(how & 0xFFFFFFFF, known, 'SA')}"
    if restorer is not None and how & known.get("SA_RESTORER", 0):
        text += f", sa_restorer={restorer:#x}"
    return text + "}"


def wait_status(call: Call, value: int) -> str:
    """How a process has ended."""
    if not value:
        return "NULL"
    row = call.unpack("i", value) if call.result is not None and call.result > 0 else None
    if row is None:
        return hex(value)
    status = row[0] & 0xFFFFFFFF
    low = status & 0x7F
    if low == 0:
        return f"[{{WIFEXITED(s) && WEXITSTATUS(s) == {status >> 8 & 0xFF}}}]"
    if low == 0x7F and status != 0xFFFF:
        stopped = signal_text(call.abi, status >> 8 & 0xFF)
        return f"[{{WIFSTOPPED(s) && WSTOPSIG(s) == {stopped}}}]"
    if status == 0xFFFF:
        return "[{WIFCONTINUED(s)}]"
    core = " && WCOREDUMP(s)" if status & 0x80 else ""
    return f"[{{WIFSIGNALED(s) && WTERMSIG(s) == {signal_text(call.abi, low)}{core}}}]"


def clone_flags(call: Call, value: int) -> str:
    """The flags of clone(), with the signal."""
    known = constants.table("clone", call.abi)
    end = value & 0xFF
    words = []
    if value & ~0xFF:
        words.append(flag_text(value & ~0xFF & 0xFFFFFFFF, known, "CLONE"))
    if end:
        words.append(signal_text(call.abi, end))
    return "|".join(words) or "0"


def futex_op(call: Call, value: int) -> str:
    """What futex() is to do."""
    text = choice_text(call, value & 0x7F, "futex", "FUTEX")
    if value & 128:
        text += "_PRIVATE"
    return text + ("|FUTEX_CLOCK_REALTIME" if value & 256 else "")


# ---- terminals and sockets ----


def ioctl_command(call: Call, value: int) -> str:
    """What ioctl() is to do."""
    for name, known in constants.table("ioctl", call.abi).items():
        if value == known:
            return name
    way = ("_IOC_NONE", "_IOC_WRITE", "_IOC_READ", "_IOC_READ|_IOC_WRITE")[value >> 30 & 3]
    return f"_IOC({way}, {value >> 8 & 0xFF:#x}, {value & 0xFF:#x}, {value >> 16 & 0x3FFF:#x})"


def ioctl_argument(call: Call, value: int) -> str:
    """What ioctl() is given."""
    command = ioctl_command(call, call.args[1])
    if call.failed:
        return address(call, value)
    if command in ("TCGETS", "TCSETS", "TCSETSW", "TCSETSF"):
        row = call.unpack("IIII", value)
        return address(call, value) if row is None else termios(call, row)
    if command in ("TIOCGPGRP", "TIOCSPGRP", "FIONREAD", "FIONBIO", "TIOCGPTN", "TIOCGSID"):
        row = call.unpack("i", value)
        return address(call, value) if row is None else f"[{row[0]}]"
    if command in ("TIOCGWINSZ", "TIOCSWINSZ"):
        row = call.unpack("HHHH", value)
        if row is not None:
            names = ("ws_row", "ws_col", "ws_xpixel", "ws_ypixel")
            return "{" + ", ".join(f"{n}={v}" for n, v in zip(names, row)) + "}"
    return hexadecimal(call, value) if value < 4096 else address(call, value)


_SPEEDS = [
    *(0, 50, 75, 110, 134, 150, 200, 300, 600, 1200, 1800, 2400, 4800, 9600, 19200, 38400),
]
_FAST = {0x1001: "B57600", 0x1002: "B115200", 0x1003: "B230400", 0x1004: "B460800"}

#: Fields of several bits: the shift, and the names.
_DELAYS = [
    *((8, "NL0 NL1"), (9, "CR0 CR1 CR2 CR3"), (11, "TAB0 TAB1 TAB2 TAB3"), (13, "BS0 BS1")),
    *((14, "VT0 VT1"), (15, "FF0 FF1")),
]


def termios(call: Call, row: Sequence[int]) -> str:
    """A terminal's settings."""

    def words(name: str, value: int, first: Sequence[str] = ()) -> str:
        rest = flag_text(value, constants.table(name, call.abi), "")
        return "|".join([*first, rest] if value or not first else first)

    delays = [names.split()[row[1] >> shift & (names.count(" "))] for shift, names in _DELAYS]
    rate = row[2] & 0x100F
    speed = f"B{_SPEEDS[rate]}" if rate < 16 else _FAST.get(rate, hex(rate))
    size = f"CS{5 + (row[2] >> 4 & 3)}"
    return (
        f"{{c_iflag={words('c_iflag', row[0])}, "
        f"c_oflag={words('c_oflag', row[1] & 0xFF, delays)}, "
        f"c_cflag={words('c_cflag', row[2] & ~0x103F, [speed, size])}, "
        f"c_lflag={words('c_lflag', row[3])}, ...}}"
    )


def socket_type(call: Call, value: int) -> str:
    """The type of a socket, with its flags."""
    known = constants.table("sock_flags", call.abi)
    rest = sum(known.values())
    text = choice_text(call, value & ~rest & 0xFFFFFFFF, "sock", "SOCK")
    return "|".join([text, flag_text(value & rest, known, "SOCK")] if value & rest else [text])


def socket_flags(call: Call, value: int) -> str:
    """The flags of accept4() and others."""
    return flag_text(value, constants.table("sock_flags", call.abi), "SOCK")


def protocol(call: Call, value: int) -> str:
    """A socket's protocol."""
    if call.args[0] in (2, 10):
        return choice_text(call, value, "ipproto", "IPPROTO")
    return str(value)


def socket_address(call: Call, at: int, size: int) -> str:
    """A struct sockaddr."""
    if not at:
        return "NULL"
    data = call.read(at, min(size, 128))
    if data is None or size < 2:
        return hex(at)
    family = int.from_bytes(data[:2], call.decoder.order)  # type: ignore[arg-type]
    name = choice_text(call, family, "domain", "AF")
    if name == "AF_INET" and size >= 8:
        host = ".".join(map(str, data[4:8]))
        port = int.from_bytes(data[2:4], "big")
        return f'{{sa_family=AF_INET, sin_port=htons({port}), sin_addr=inet_addr("{host}")}}'
    if name == "AF_INET6" and size >= 24:
        import ipaddress

        host = str(ipaddress.IPv6Address(data[8:24]))
        port = int.from_bytes(data[2:4], "big")
        flow = int.from_bytes(data[4:8], "big")
        scope = int.from_bytes(data[24:28], call.decoder.order)  # type: ignore[arg-type]
        return (
            f"{{sa_family=AF_INET6, sin6_port=htons({port}), sin6_flowinfo=htonl({flow}), "
            f'inet_pton(AF_INET6, "{host}", &sin6_addr), sin6_scope_id={scope}}}'
        )
    if name == "AF_UNIX":
        if size == 2:
            return "{sa_family=AF_UNIX}"
        if data[2] == 0:
            return f"{{sa_family=AF_UNIX, sun_path=@{quote(data[3:size])}}}"
        return f"{{sa_family=AF_UNIX, sun_path={quote(data[2:].partition(bytes(1))[0])}}}"
    if name == "AF_NETLINK" and size >= 12:
        pid, groups = struct.unpack_from(call.decoder.prefix + "II", data, 4)
        mask = f"{groups:08x}" if groups else "00000000"
        return f"{{sa_family=AF_NETLINK, nl_pid={pid}, nl_groups={mask}}}"
    return f"{{sa_family={name}, sa_data={quote(data[2:size])}}}"


def address_of(index: int) -> Formatter:
    """A socket's address; argument ``index`` has its size."""
    return Formatter(lambda call, value: socket_address(call, value, call.args[index]))


def _address_at(index: int) -> Formatter:
    def text(call: Call, value: int) -> str:
        size = call.unpack("i", call.args[index])
        if call.failed or size is None:
            return address(call, value)
        return socket_address(call, value, size[0])

    return Formatter(text, out=True)


def length_at(call: Call, value: int) -> str:
    """A size that the call reads and writes."""
    row = call.unpack("i", value) if value else None
    return address(call, value) if row is None else f"[{row[0]}]"


def level(call: Call, value: int) -> str:
    """The level of a socket's option."""
    return {1: "SOL_SOCKET", 0: "SOL_IP", 6: "SOL_TCP", 41: "SOL_IPV6", 263: "SOL_PACKET"}.get(
        value, str(value)
    )


def option(call: Call, value: int) -> str:
    """A socket's option."""
    if call.args[1] == 1:
        return choice_text(call, value, "sockopt", "SO")
    if call.args[1] == 6:
        return choice_text(call, value, "tcp", "TCP")
    return f"{value:#x}"


def option_value(call: Call, value: int) -> str:
    """The value of a socket's option."""
    row = call.unpack("i", value) if value and call.args[4] == 4 else None
    return address(call, value) if row is None else f"[{row[0]}]"


def poll_set(call: Call, value: int) -> str:
    """What poll() waits for."""
    if not value or not call.args[1]:
        return "NULL" if not value else "[]"
    words = []
    for i in range(min(call.args[1], LIMIT)):
        row = call.unpack("iHH", value + 8 * i)
        if row is None:
            return hex(value)
        events = flag_text(row[1], constants.table("poll", call.abi), "POLL")
        words.append(f"{{fd={row[0]}, events={events}}}" if row[0] >= 0 else f"{{fd={row[0]}}}")
    return f"[{', '.join(words)}]"


def fd_set(call: Call, value: int) -> str:
    """What select() waits for."""
    if not value:
        return "NULL"
    count = min(call.args[0], 1024)
    width = call.decoder.word
    found = []
    for i in range((count + width * 8 - 1) // (width * 8)):
        word = call.word(value + i * width)
        if word is None:
            return hex(value)
        found += [i * width * 8 + n for n in range(width * 8) if word >> n & 1]
    return f"[{' '.join(str(n) for n in found if n < count)}]"


def io_vectors(call: Call, value: int, limit: int | None = None) -> str:
    """An array of pieces of memory."""
    width = call.decoder.word
    words = []
    for i in range(min(call.args[2], LIMIT)):
        base, size = call.word(value + 2 * i * width), call.word(value + (2 * i + 1) * width)
        if base is None or size is None:
            return address(call, value)
        shown = size if limit is None else min(size, limit)
        if limit is not None:
            limit -= shown
        words.append(f"{{iov_base={memory(call, base, shown)}, iov_len={size}}}")
    return f"[{', '.join(words)}]"


def io_vectors_read(call: Call, value: int) -> str:
    """The same after they have been filled."""
    if call.result is None or call.result < 0:
        return address(call, value)
    return io_vectors(call, value, call.result)


def uname(call: Call, value: int) -> str:
    """A struct utsname."""
    data = None if call.failed else call.read(value, 65 * 6)
    if data is None:
        return address(call, value)
    fields = [quote(data[i * 65 : i * 65 + 65].partition(bytes(1))[0]) for i in range(2)]
    return f"{{sysname={fields[0]}, nodename={fields[1]}, ...}}"


def string_out(call: Call, value: int) -> str:
    """A string that the call has written."""
    return address(call, value) if call.failed else path(call, value)


def number_at(call: Call, value: int) -> str:
    """An int in memory."""
    row = call.unpack("i", value) if value and not call.failed else None
    return address(call, value) if row is None else f"[{row[0]}]"


def offset_at(call: Call, value: int) -> str:
    """An offset in memory that is read."""
    row = call.unpack("q", value) if value else None
    return address(call, value) if row is None else f"[{row[0]}]"


def groups(call: Call, value: int) -> str:
    """A list of groups."""
    count = call.args[0] if call.result is None else call.result
    if call.failed or not value:
        return address(call, value)
    row = call.unpack("I" * count, value) if call.args[0] and count else ()
    return address(call, value) if row is None else f"[{', '.join(map(str, row))}]"


def groups_in(call: Call, value: int) -> str:
    """A list of groups that is read."""
    row = call.unpack("I" * call.args[0], value) if call.args[0] else ()
    return address(call, value) if row is None else f"[{', '.join(map(str, row))}]"


def sysinfo(call: Call, value: int) -> str:
    """A struct sysinfo."""
    row = None if call.failed else call.unpack("lLLLLLLLLLH", value)
    wide = call.decoder.word == 8
    rest = call.unpack("QQI" if wide else "III", value + (88 if wide else 44))
    if row is None or rest is None:
        return address(call, value)
    names = ["totalram", "freeram", "sharedram", "bufferram", "totalswap", "freeswap", "procs"]
    fields = [f"uptime={row[0]}", f"loads=[{row[1]}, {row[2]}, {row[3]}]"]
    fields += [f"{name}={value}" for name, value in zip(names, row[4:])]
    names = ["totalhigh", "freehigh", "mem_unit"]
    return "{" + ", ".join(fields + [f"{n}={v}" for n, v in zip(names, rest)]) + "}"


def mask_bytes(call: Call, value: int) -> str:
    """A set of CPUs."""
    if call.result is None or call.result <= 0:
        return address(call, value)
    data = call.read(value, call.result) or b""
    bits = int.from_bytes(data, "little")
    return f"[{' '.join(str(n) for n in range(len(data) * 8) if bits >> n & 1)}]"


def prctl_arg(call: Call, value: int) -> str:
    """What prctl() is given first."""
    if call.args[0] in (15, 16):
        return string(call, value)
    return hexadecimal(call, value)


_FD = _plain(int_32)
_NUM = _plain(number)
_LONG = _plain(signed)
_PTR = _plain(address)
_PATH = _plain(path)
_STR = _plain(string)
_AT = _plain(dirfd)
_OCT = _plain(octal)
_SIZE = _plain(number)
_OPEN = _plain(open_flags)
_STAT = _plain(stat, out=True)
_SIG = _plain(signal)
_AT_FLAGS = flags("at", "AT")
_STATX_AT = _plain(
    lambda call, value: "|".join(
        [
            flag_text(value & 0x6000, constants.table("statx_at", call.abi), "AT"),
            *(
                [flag_text(value & ~0x6000, constants.table("at", call.abi), "AT")]
                if value & ~0x6000
                else []
            ),
        ]
    )
)
_MODE = _plain(octal)
_PROT = flags("prot", "PROT", "PROT_NONE")
_MSG = flags("msg", "MSG")
_SET_IN = _plain(sigset)
_SET_OUT = _plain(sigset, out=True)
_TS_IN = _plain(timespec_in)
_TS_OUT = _plain(timespec, out=True)

#: Call, by its public name -> its arguments; what is missing is printed by its type.
_SPECS: dict[str, tuple[Formatter, ...]] = {
    "accept": (_FD, _address_at(2), _plain(length_at, out=True)),
    "accept4": (_FD, _address_at(2), _plain(length_at, out=True), _plain(socket_flags)),
    "access": (_PATH, flags("access", "F")),
    "arch_prctl": (choice("arch_prctl", "ARCH"), _PTR),
    "bind": (_FD, address_of(2), _FD),
    "brk": (_PTR,),
    "chdir": (_PATH,),
    "chmod": (_PATH, _MODE),
    "chown": (_PATH, _FD, _FD),
    "clock_getres": (choice("clock", "CLOCK"), _TS_OUT),
    "clock_gettime": (choice("clock", "CLOCK"), _TS_OUT),
    "clock_nanosleep": (
        choice("clock", "CLOCK"),
        flags("timer", "TIMER"),
        _TS_IN,
        _plain(timespec_left, out=True),
    ),
    "connect": (_FD, address_of(2), _FD),
    "creat": (_PATH, _MODE),
    "dup2": (_FD, _FD),
    "dup3": (_FD, _FD, _OPEN),
    "execve": (_PATH, _plain(strings), _plain(environment)),
    "faccessat": (_AT, _PATH, flags("access", "F")),
    "faccessat2": (_AT, _PATH, flags("access", "F"), _AT_FLAGS),
    "fadvise64": (_FD, _LONG, _SIZE, choice("fadvise", "POSIX_FADV")),
    "fchmod": (_FD, _MODE),
    "fchmodat": (_AT, _PATH, _MODE),
    "fchown": (_FD, _FD, _FD),
    "fchownat": (_AT, _PATH, _FD, _FD, _AT_FLAGS),
    "flock": (_FD, flags("flock", "LOCK")),
    "fstat": (_FD, _STAT),
    "futex": (_PTR, _plain(futex_op), _FD, _TS_IN),
    "getcwd": (_plain(string_out, out=True), _SIZE),
    "getdents64": (_FD, _plain(entries, out=True), _SIZE),
    "getgroups": (_NUM, _plain(groups, out=True)),
    "getpeername": (_FD, _address_at(2), _plain(length_at, out=True)),
    "getrandom": (
        Formatter(lambda c, v: _returned(c, v, hexadecimal=True), out=True),
        _SIZE,
        flags("getrandom", "GRND"),
    ),
    "getsockname": (_FD, _address_at(2), _plain(length_at, out=True)),
    "getsockopt": (
        _FD,
        _plain(level),
        _plain(option),
        _plain(number_at, out=True),
        _plain(length_at, out=True),
    ),
    "gettimeofday": (_plain(timeval, out=True), _PTR),
    "kill": (_FD, _SIG),
    "lchown": (_PATH, _FD, _FD),
    "link": (_PATH, _PATH),
    "linkat": (_AT, _PATH, _AT, _PATH, _AT_FLAGS),
    "listen": (_FD, _FD),
    "lseek": (_FD, _LONG, choice("seek", "SEEK")),
    "lstat": (_PATH, _STAT),
    "madvise": (_PTR, _SIZE, choice("madvise", "MADV")),
    "mkdir": (_PATH, _MODE),
    "mkdirat": (_AT, _PATH, _MODE),
    "mknod": (_PATH, _plain(mode)),
    "mknodat": (_AT, _PATH, _plain(mode)),
    "mmap": (_PTR, _SIZE, _PROT, flags("map", "MAP"), _FD, _plain(hexadecimal)),
    "mount": (_PATH, _PATH, _STR, flags("mount", "MS"), _PTR),
    "mprotect": (_PTR, _SIZE, _PROT),
    "mremap": (_PTR, _SIZE, _SIZE, flags("mremap", "MREMAP")),
    "munmap": (_PTR, _SIZE),
    "nanosleep": (_TS_IN, _plain(timespec_left, out=True)),
    "newfstatat": (_AT, _PATH, _STAT, _AT_FLAGS),
    "pipe": (_plain(pipe, out=True),),
    "pipe2": (_plain(pipe, out=True), flags("open", "O")),
    "poll": (_plain(poll_set), _NUM, _FD),
    "open": (_PATH, _OPEN, _MODE),
    "openat": (_AT, _PATH, _OPEN, _MODE),
    "prctl": (choice("prctl", "PR"), _plain(prctl_arg, out=True)),
    "pread64": (_FD, _plain(_returned, out=True), _SIZE, _LONG),
    "prlimit64": (
        _FD,
        choice("rlimit", "RLIMIT"),
        _plain(rlimit64),
        _plain(rlimit64, out=True),
    ),
    "pwrite64": (_FD, written(2), _SIZE, _LONG),
    "read": (_FD, _plain(_returned, out=True), _SIZE),
    "readlink": (_PATH, _plain(_returned, out=True), _SIZE),
    "readlinkat": (_AT, _PATH, _plain(_returned, out=True), _SIZE),
    "readv": (_FD, _plain(io_vectors_read, out=True), _NUM),
    "recvfrom": (
        _FD,
        _plain(_returned, out=True),
        _SIZE,
        _MSG,
        _address_at(5),
        _plain(length_at, out=True),
    ),
    "rename": (_PATH, _PATH),
    "renameat": (_AT, _PATH, _AT, _PATH),
    "renameat2": (_AT, _PATH, _AT, _PATH, flags("rename", "RENAME")),
    "rmdir": (_PATH,),
    "rseq": (_PTR, _plain(hexadecimal), _plain(hexadecimal), _plain(hexadecimal)),
    "rt_sigaction": (_SIG, _plain(sigaction), _plain(sigaction, out=True), _SIZE),
    "rt_sigprocmask": (choice("sigmask", "SIG"), _SET_IN, _SET_OUT, _SIZE),
    "rt_sigsuspend": (_SET_IN, _SIZE),
    "sched_getaffinity": (_FD, _SIZE, _plain(mask_bytes, out=True)),
    "select": (_FD, _plain(fd_set), _plain(fd_set), _plain(fd_set), _plain(timeval)),
    "sendfile": (_FD, _FD, _plain(offset_at), _SIZE),
    "sendto": (_FD, written(2), _SIZE, _MSG, address_of(5), _FD),
    "setgroups": (_NUM, _plain(groups_in)),
    "setsockopt": (_FD, _plain(level), _plain(option), _plain(option_value), _FD),
    "shutdown": (_FD, choice("shut", "SHUT")),
    "socket": (choice("domain", "AF"), _plain(socket_type), _plain(protocol)),
    "socketpair": (
        choice("domain", "AF"),
        _plain(socket_type),
        _plain(number),
        _plain(pipe, out=True),
    ),
    "splice": (_FD, _PTR, _FD, _PTR, _SIZE, flags("splice", "SPLICE_F")),
    "stat": (_PATH, _STAT),
    "statfs": (_PATH, _plain(statfs, out=True)),
    "statx": (
        _AT,
        _PATH,
        _STATX_AT,
        flags("statx", "STATX"),
        _plain(statx, out=True),
    ),
    "symlink": (_PATH, _PATH),
    "symlinkat": (_PATH, _AT, _PATH),
    "syslog": (choice("syslog", "SYSLOG_ACTION"), _plain(_returned, out=True), _SIZE),
    "sysinfo": (_plain(sysinfo, out=True),),
    "tgkill": (_FD, _FD, _SIG),
    "tkill": (_FD, _SIG),
    "truncate": (_PATH, _LONG),
    "ftruncate": (_FD, _LONG),
    "umask": (_OCT,),
    "umount2": (_PATH, flags("umount", "MNT")),
    "uname": (_plain(uname, out=True),),
    "unlink": (_PATH,),
    "unlinkat": (_AT, _PATH, _AT_FLAGS),
    "utimensat": (_AT, _PATH, _plain(timespecs), _AT_FLAGS),
    "wait4": (_FD, _plain(wait_status, out=True), flags("wait", "W"), _PTR),
    "write": (_FD, written(2), _SIZE),
    "writev": (_FD, _plain(io_vectors), _NUM),
}

#: Calls that differ in their name only, by what the arguments mean.
_SAME = {
    "_llseek": "llseek",
    "_newselect": "select",
    "clock_gettime64": "clock_gettime",
    "clock_nanosleep_time64": "clock_nanosleep",
    "fadvise64_64": "fadvise64",
    "fstat64": "fstat",
    "fstatat64": "newfstatat",
    "ftruncate64": "ftruncate",
    "futex_time64": "futex",
    "lstat64": "lstat",
    "mmap2": "mmap",
    "sendfile64": "sendfile",
    "stat64": "stat",
    "truncate64": "truncate",
    "ugetrlimit": "getrlimit",
    "vfork": "fork",
}

#: Results that are addresses.
_ADDRESSES = frozenset({"brk", "mmap", "mmap2", "mremap", "shmat"})

#: Arguments that the kernel has without a sign, and programs have with one.
_FD_NAMES = frozenset({"fd", "fildes", "in_fd", "newfd", "oldfd", "out_fd"})

_BY_KIND = {"i": _FD, "u": _NUM, "q": _LONG, "s": _STR, "p": _PTR, "b": _PTR}


class Decoder:
    """Makes the text of system calls of an ABI.

    Args:
        abi: a name of :data:`pandalite.syscalls.numbers.ARCH_ABIS`.
        order: the guest's byte order, ``"little"`` or ``"big"``.
    """

    def __init__(self, abi: str, order: str = "little") -> None:
        self.abi: str = abi
        self.order = order
        self.prefix = "<" if order == "little" else ">"
        #: Bytes in a long.
        narrow = ("i386", "arm", "mips_o32", "mips_n32", "ppc")
        self.word = 4 if abi in narrow else 8
        #: Number -> the name programs have for a call.
        self.public = public_names(abi)
        self._calls = calls(abi)

    def enter(self, number: int, args: Sequence[int], read: Reader) -> Call:
        """A call is made: take what it reads.

        Args:
            number: its number.
            args: its arguments, as the core has them.
            read: reads the guest's memory.
        """
        name = self._calls.get(number)
        if name is None:
            prototype = Prototype(f"syscall_{number:#x}", (), False)
            call = Call(self, number, prototype, args)
            call.texts = [hex(arg) for arg in args]
            return call
        prototype = prototypes()[name]
        call = Call(self, number, prototype, list(args)[: len(prototype.args)])
        # What is not in memory yet the call brings there: it is looked at later.
        missed = False

        def note(address: int, size: int) -> bytes | None:
            nonlocal missed
            data = read(address, size)
            missed = missed or data is None
            return data

        call.read = note
        for how, arg in zip(self._spec(call), call.args):
            missed = False
            text = None if how.out else how.text(call, arg)
            call.texts.append(None if missed else text)
        call.read = _nothing
        return call

    def new_program(self, call: Call, sp: int, read: Reader) -> None:
        """An execve() has succeeded: take what could not be read from the new stack."""
        call.read = read
        width = self.word
        count = call.word(sp)
        texts = [strings(call, sp + width)]
        place = sp + ((count or 0) + 2) * width
        variables = 0
        while call.word(place) and variables < 65536:
            place += width
            variables += 1
        texts.append(f"0x0 /* {variables} vars */")
        kind = 1
        while kind and place < sp + 65536 * width:
            kind, value = call.word(place + width) or 0, call.word(place + 2 * width) or 0
            place += 2 * width
            if kind == _AT_EXECFN:
                texts.insert(0, path(call, value))
        first = 1 if call.name == "execveat" else 0
        if len(texts) == 3 and len(call.texts) >= first + 3:
            for index, text in enumerate(texts):
                if call.texts[first + index] is None:
                    at = hex(call.args[first + index])
                    call.texts[first + index] = text.replace("0x0 /", f"{at} /", 1)
        call.read = _nothing

    def sigreturn(self, sp: int, read: Reader) -> str | None:
        """The text of a rt_sigreturn(), whose arguments are on the stack; None: not known."""
        if self.abi != "x86_64":
            return None
        call = Call(self, 15, prototypes()["rt_sigreturn"], ())
        call.read = read
        # Of the ucontext: RAX and the mask.
        result, mask = call.word(sp + 144), call.word(sp + 296)
        if result is None or mask is None:
            return None
        result -= 1 << 64 if result >> 63 else 0
        text = f"rt_sigreturn({{mask={sigset_text(call, [mask])}}})"
        return f"{text} = {self._result(call, result)}"

    def _spec(self, call: Call) -> list[Formatter]:
        given = _SPECS.get(_SAME.get(call.name, call.name), ())
        rest = [
            _FD if arg.name in _FD_NAMES else _BY_KIND.get(arg.kind, _plain(hexadecimal))
            for arg in call.prototype.args
        ]
        return [*given[: len(rest)], *rest[len(given) :]]

    def leave(self, call: Call, result: int | None, read: Reader) -> str:
        """A call has returned: its text.

        Args:
            call: what :meth:`enter` gave.
            result: what it has returned, errors negative; None: it does not return.
            read: reads the guest's memory.
        """
        call.result = result
        call.read = read
        spec = self._spec(call)
        texts = [
            how.text(call, arg) if text is None else text
            for how, arg, text in zip(spec, call.args, call.texts)
        ]
        if len(call.texts) > len(texts):
            texts = [text or "" for text in call.texts]
        texts = self._special(call, texts)
        ending = self._result(call, result)
        call.read = _nothing
        return f"{call.name}({', '.join(texts)}) = {ending}"

    def _special(self, call: Call, texts: list[str]) -> list[str]:
        """Arguments that others decide about."""
        name, args = call.name, call.args
        if name in ("open", "openat"):
            at = name == "openat"
            head = [dirfd(call, args[0])] if at else []
            kept = texts[at : at + 1]
            how = open_flags(call, args[1 + at])
            tail = [octal(call, args[2 + at])] if _creates(call, args[1 + at]) else []
            return [*head, *kept, how, *tail]
        if name in ("fcntl", "fcntl64"):
            argument = fcntl_arg(call, args[2])
            command = choice_text(call, args[1], "fcntl", "F")
            return [texts[0], command, *([] if argument is None else [argument])]
        if name == "ioctl":
            return [
                int_32(call, args[0]),
                ioctl_command(call, args[1]),
                ioctl_argument(call, args[2]),
            ]
        if name == "clone":
            return self._clone(call)
        if name == "futex" and args[1] & 0x7F in (1, 10):
            return texts[:3]
        if name == "futex" and args[1] & 0x7F == 0:
            return texts[:4]
        if name == "prctl" and args[0] in (15, 16):
            return texts[:2]
        if name == "poll" and call.result and call.result > 0:
            return texts
        if name == "mremap" and not args[3] & 2:
            return texts[:4]
        if name in ("mknod", "mknodat") and args[-2] & 0o170000 not in (0o020000, 0o060000):
            return texts[:-1]
        return texts

    @staticmethod
    def _clone(call: Call) -> list[str]:
        how, stack, parent, *rest = call.args
        backwards = call.abi in ("x86_64",)
        child, tls = (rest[0], rest[1]) if backwards else (rest[1], rest[0])
        words = [f"child_stack={address(call, stack)}", f"flags={clone_flags(call, how)}"]
        known = constants.table("clone", call.abi)
        if how & (known["CLONE_PARENT_SETTID"] | known["CLONE_PIDFD"]):
            row = call.unpack("i", parent)
            words.append(f"parent_tid=[{row[0]}]" if row else f"parent_tid={parent:#x}")
        if how & known["CLONE_SETTLS"]:
            words.append(f"tls={tls:#x}")
        if how & (known["CLONE_CHILD_SETTID"] | known["CLONE_CHILD_CLEARTID"]):
            words.append(f"child_tidptr={child:#x}")
        return words

    def _result(self, call: Call, result: int | None) -> str:
        if result is None:
            return "?"
        if -4095 <= result < 0:
            if -result in _RESTARTS:
                return f"? {_RESTARTS[-result]}"
            name = constants.errors(self.abi).get(-result, str(-result))
            return f"-1 {name} ({self._message(name, -result)})"
        if call.name in _ADDRESSES:
            return hex(result)
        if call.name == "umask":
            return f"{result:#o}".replace("0o", "0") if result else "000"
        if call.name in ("fcntl", "fcntl64"):
            return self._fcntl_result(call, result)
        if call.name == "poll":
            return self._poll_result(call, result)
        if call.name in ("select", "_newselect") and call.args[4] and result == 0:
            return "0 (Timeout)"
        return str(result)

    @staticmethod
    def _message(name: str, number: int) -> str:
        import errno

        return os.strerror(getattr(errno, name, number))

    @staticmethod
    def _fcntl_result(call: Call, result: int) -> str:
        command = choice_text(call, call.args[1], "fcntl", "F")
        if command == "F_GETFL":
            return f"{result:#x} (flags {open_flags(call, result)})"
        if command == "F_GETFD" and result:
            return f"{result:#x} (flags {flag_text(result, constants.table('fd', call.abi), 'FD')})"
        return str(result)

    @staticmethod
    def _poll_result(call: Call, result: int) -> str:
        if not result:
            return "0 (Timeout)"
        words = []
        for i in range(min(call.args[1], LIMIT)):
            row = call.unpack("iHH", call.args[0] + 8 * i)
            if row and row[2]:
                events = flag_text(row[2], constants.table("poll", call.abi), "POLL")
                words.append(f"{{fd={row[0]}, revents={events}}}")
        return f"{result} ([{', '.join(words)}])"
