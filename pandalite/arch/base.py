"""What all guest architectures have in common."""

from __future__ import annotations

import struct
import warnings
from ctypes import Array, c_uint8
from difflib import get_close_matches
from operator import index as as_int
from types import MappingProxyType
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    ClassVar,
    NamedTuple,
    NoReturn,
    Protocol,
    Union,
    cast,
)

from pandalite._bindings.enums import PandaStatus, PandaValue
from pandalite.errors import GuestCoreError, GuestMemoryError, PandaError, StateError
from pandalite.telescope import telescope
from pandalite.utils import warn

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, MutableSequence, Sequence

    from pandalite._bindings.loader import CoreLibrary
    from pandalite._bindings.structs import PandaCPU

__all__ = ["ArchHost", "PandaArch", "Register", "SubRegister", "numbered", "pack_places"]

#: What a register may be named by.
Register = Union[str, int]


class ArchHost(Protocol):
    """What an architecture object needs of the :class:`~pandalite.Panda` it belongs to."""

    @property
    def arch_name(self) -> str:
        """The guest architecture."""

    @property
    def bits(self) -> int:
        """Width of an address."""

    @property
    def endianness(self) -> str:
        """Byte order, ``"little"`` or ``"big"``."""

    @property
    def register_size(self) -> int:
        """Bytes in a general register."""

    @property
    def cpu(self) -> PandaCPU:
        """The first CPU."""

    @property
    def lib(self) -> CoreLibrary:
        """The core library."""

    @property
    def virtual_memory_read(self) -> Callable[..., Any]:
        """``Panda.virtual_memory_read``."""

    @property
    def virtual_memory_write(self) -> Callable[..., Any]:
        """``Panda.virtual_memory_write``."""


class SubRegister(NamedTuple):
    """A part of a general register that has a name of its own."""

    #: The general register.
    number: int
    #: Lowest bit.
    shift: int
    #: Width in bits.
    width: int


class PandaArch:
    """Registers, calling conventions and the stack of a guest architecture.

    Facts are data: a subclass states them as class attributes. ``cpu`` is what
    callbacks are handed, or ``panda.get_cpu()``.
    """

    #: Register number of the stack pointer.
    reg_sp: int | None = None
    #: Register number of the program counter; None where it is not a general register.
    reg_pc: int | None = None
    #: Register number of the return address; None where it is on the stack.
    reg_retaddr: int | None = None
    #: Register of the return value, by calling convention.
    reg_retval: Mapping[str, str] = {}
    #: Locations of the arguments, by calling convention: a register, or ``stack_N``.
    call_conventions: Mapping[str, Sequence[str]] = {}
    #: General registers: upper-case name -> number.
    registers: Mapping[str, int] = {}

    #: Further names of general registers, upper-case.
    aliases: ClassVar[Mapping[str, str]] = {}
    #: Register number of the one that is always 0.
    reg_zero: ClassVar[int | None] = None
    #: Parts of general registers, by upper-case name.
    sub_registers: ClassVar[Mapping[str, SubRegister]] = {}
    #: Prefix of the names of the registers' lower halves, by number.
    narrow_prefix: ClassVar[str] = ""
    #: Bytes in a general register, where it is not the machine's register size.
    register_width: ClassVar[int | None] = None
    #: Where in CPUArchState the general registers are.
    register_file: ClassVar[str] = ""

    def __init__(self, panda: ArchHost) -> None:
        """Bind to a :class:`~pandalite.Panda`; done by its constructor."""
        self.panda = panda
        #: Bytes in a general register, an address and a stack word.
        self._width = self.register_width or panda.register_size
        self._mask = (1 << self._width * 8) - 1
        #: Names as users write them most, so that the common case is one lookup.
        self._index: dict[Register, int] = {}
        self._numbers = {**self.registers}
        self._numbers.update({name: self.registers[of] for name, of in self.aliases.items()})
        for name, number in self._numbers.items():
            for key in (name, name.lower(), number):
                self._index[key] = number
        #: Those whose writing is no more than a store to the register file.
        special = (self.reg_pc, self.reg_zero)
        self._writable = {k: n for k, n in self._index.items() if n not in special}
        #: Parts of registers, likewise: register, shift and mask.
        self._parts: dict[str, tuple[int, int, int]] = {}
        self._named_parts = {**self.sub_registers}
        if self.narrow_prefix:
            self._named_parts.update(
                {
                    f"{self.narrow_prefix}{n}": SubRegister(n, 0, self._width * 4)
                    for n in self.registers.values()
                    if n != self.reg_sp
                }
            )
        for name, part in self._named_parts.items():
            for key in (name, name.lower()):
                self._parts[key] = (part.number, part.shift, (1 << part.width) - 1)
        #: What reads the registers that only the core knows, once it was asked for.
        self._readers: dict[str, Callable[[PandaCPU], Any]] = {}
        #: The guest's general registers, in this process's memory.
        self._file: MutableSequence[int] = _UNBOUND
        self._core: dict[str, tuple[int, int]] | None = None
        #: Reads several values at once; see :mod:`pandalite.compound`.
        self.read_values: Callable[[bytes], list[int] | None] = _read_one_by_one
        self._places: dict[tuple[Any, Any], bytes] = {}
        #: Registers asked for together: their values' numbers, or None.
        self._groups: dict[tuple[Register, ...], bytes | None] = {}

    # ---- the register file ----

    def general_registers(self, cpu: PandaCPU) -> memoryview:
        """Return the general registers as a writable array of integers.

        It is the memory the guest's registers live in: reading and writing act
        on them at once. Not to be used after the machine has ended.
        """
        field: Any = cpu.env_ptr
        if field is None:
            raise StateError("there are no registers yet: run() creates the machine")
        for part in self.register_file.split("."):
            field = getattr(field, part)
        # From the ctypes array's own format to a native one, which is faster.
        return memoryview(field).cast("B").cast("Q" if self._width == 8 else "I")

    def attach(self) -> None:
        """Use the machine's register file; to be called when it has been created."""
        self._file = cast("MutableSequence[int]", self.general_registers(self.panda.cpu))

    def detach(self) -> None:
        """Forget the machine's register file; to be called when it has ended."""
        self._file = _UNBOUND

    def _bind(self) -> MutableSequence[int]:
        if self._file is _UNBOUND:
            self.attach()
        return self._file

    # ---- registers ----

    def get_reg(self, cpu: PandaCPU, reg: Register) -> Any:
        """Return the value of a register.

        Args:
            reg: a name (upper or lower case) or the number of a general
                register; ``"PC"`` is the program counter.

        Raises:
            ValueError: if there is no such register.
        """
        try:
            return self._file[self._index[reg]]
        except (LookupError, TypeError):
            return self._get_any(cpu, reg)

    def set_reg(self, cpu: PandaCPU, reg: Register, val: Any) -> None:
        """Set a register; the rest of a register of which ``reg`` is a part is kept.

        A negative value stands for its two's complement.

        Raises:
            ValueError: if there is no such register, or it cannot hold ``val``.
            StateError: if the register cannot be written at this point.
        """
        if cpu.rr_mode:
            self._check(self.panda.lib.panda_may_write_registers())
        try:
            self._file[self._writable[reg]] = val
        except (LookupError, TypeError, ValueError):
            self._set_any(cpu, reg, val)

    def get_pc(self, cpu: PandaCPU) -> int:
        """Return the program counter; in a callback, that of the event."""
        if cpu.in_callback:
            return cpu.panda_guest_pc
        return self.panda.lib.fast.panda_current_pc(cpu)

    def set_pc(self, cpu: PandaCPU, val: int) -> None:
        """Continue at ``val``: in a callback, as soon as its event is over.

        Raises:
            StateError: if the guest runs and this is no callback, or one that
                cannot redirect it.
        """
        self._check(self.panda.lib.panda_set_pc(cpu, self._fit(val, self._width * 8, "PC")))

    def _get_any(self, cpu: PandaCPU, reg: Register) -> Any:
        if isinstance(reg, str):
            if reg in self._parts:
                part, shift, mask = self._parts[reg]
                return self._bind()[part] >> shift & mask
            reader = self._readers.get(reg)
            if reader is not None:
                return reader(cpu)
        name, number = self._resolve(reg)
        if name in self._parts:
            return self._get_any(cpu, name)
        if number is not None:
            return self._bind()[number]
        if name == "PC":
            return self.get_pc(cpu)
        reader = self._readers[name] = self._special_reader(name)
        return reader(cpu)

    def _set_any(self, cpu: PandaCPU, reg: Register, val: Any) -> None:
        name, number = self._resolve(reg)
        if number is not None:
            val = self._fit(val, self._width * 8, name)
            if number == self.reg_pc:
                self.set_pc(cpu, val)
            elif number != self.reg_zero:
                self._bind()[number] = val
        elif name == "PC":
            self.set_pc(cpu, val)
        elif name in self._named_parts:
            part = self._named_parts[name]
            val = self._fit(val, part.width, name)
            registers = self._bind()
            mask = ((1 << part.width) - 1) << part.shift
            registers[part.number] = registers[part.number] & ~mask | val << part.shift
        else:
            self._set_special(cpu, name, val)

    def _resolve(self, reg: Register) -> tuple[str, int | None]:
        """Upper-case name, and number if it is a general register."""
        if isinstance(reg, str):
            name = reg.upper()
            return name, self._numbers.get(name)
        if isinstance(reg, int):
            if reg in self._index:
                return str(reg), reg
            raise ValueError(
                f"there is no register number {reg}: {self.panda.arch_name} has "
                f"{len(self.registers)} general registers, counted from 0"
            )
        raise ValueError(f"a register is named by a str or an int, not by {reg!r}")

    @staticmethod
    def _fit(val: Any, width: int, name: str) -> int:
        number = as_int(val)
        if not -(1 << (width - 1)) <= number < 1 << width:
            raise ValueError(f"{number:#x} does not fit into {name}, which has {width} bits")
        return number & ((1 << width) - 1)

    # ---- registers that only the core can read ----

    def _special_reader(self, name: str) -> Callable[[PandaCPU], Any]:
        """Return what reads a register that is neither general nor part of one."""
        number, size = self._core_register(name)
        buffer_type = c_uint8 * size

        def read(cpu: PandaCPU) -> int:
            buf = buffer_type()
            self._check(self.panda.lib.fast.panda_register_read(cpu, number, buf, size))
            return int.from_bytes(buf, "little")

        return read

    def _set_special(self, cpu: PandaCPU, name: str, val: Any) -> None:
        """Write a register that is neither general nor part of one."""
        size = self._core_register(name)[1]
        self._write_core(cpu, name, self._fit(val, size * 8, name).to_bytes(size, "little"))

    def _core_registers(self) -> dict[str, tuple[int, int]]:
        """The registers the core knows: name -> its number and size."""
        if self._core is None:
            lib = self.panda.lib
            known: dict[str, tuple[int, int]] = {}
            number = 0
            while True:
                name = lib.panda_register_name(number)
                if name is None:
                    break
                known[name.decode("ascii")] = (number, lib.panda_register_size(number))
                number += 1
            self._core = known
        return self._core

    def _core_register(self, name: str) -> tuple[int, int]:
        found = self._core_registers().get(name)
        if found is None:
            self._unknown(name)
        return found

    def _read_core(self, cpu: PandaCPU, name: str) -> Array[c_uint8]:
        number, size = self._core_register(name)
        buf = (c_uint8 * size)()
        self._check(self.panda.lib.fast.panda_register_read(cpu, number, buf, size))
        return buf

    def _write_core(self, cpu: PandaCPU, name: str, data: bytes) -> None:
        number, size = self._core_register(name)
        self._check(self.panda.lib.panda_register_write(cpu, number, data, size))

    def _unknown(self, name: str) -> NoReturn:
        known = {*self._numbers, *self._named_parts, *self._core_registers(), "PC"}
        close = get_close_matches(name, sorted(known), n=4)
        hint = (
            f"did you mean {', '.join(close)}?" if close else f"known: {', '.join(sorted(known))}"
        )
        raise ValueError(f"{self.panda.arch_name} has no register {name!r}; {hint}")

    def _check(self, status: int) -> None:
        """Raise what a failed call of the core means."""
        if not status:
            return
        text = (self.panda.lib.panda_last_error() or b"").decode("utf-8", "replace")
        if status == PandaStatus.ERR_ARGUMENT:
            raise ValueError(text)
        kinds: dict[int, type[PandaError]] = {
            PandaStatus.ERR_STATE: StateError,
            PandaStatus.ERR_MEMORY: GuestMemoryError,
            PandaStatus.ERR_FATAL: GuestCoreError,
        }
        raise kinds.get(status, PandaError)(text)

    # ---- calling conventions ----

    def get_arg(self, cpu: PandaCPU, idx: int, convention: str = "default") -> int:
        """Return argument ``idx`` of a function, at its entry.

        For the convention ``syscall``, number 0 is the system call's number
        and its arguments begin with 1.

        Raises:
            NotImplementedError: if the convention is not known or defines no
                place for that argument.
            ValueError: if it is on the stack, which cannot be read.
        """
        location = self._location(idx, convention)
        slot = _stack_slot(location)
        value: int = (
            self.get_reg(cpu, location) if slot is None else self._read_stack(cpu, slot + 1)
        )
        return value

    def set_arg(
        self, cpu: PandaCPU, idx: int, val: int | bytes, convention: str = "default"
    ) -> None:
        """Set argument ``idx`` of a function, at its entry.

        ``val`` may be bytes for an argument on the stack.
        """
        location = self._location(idx, convention)
        slot = _stack_slot(location)
        if slot is not None:
            self._write_stack(cpu, slot + 1, val)
        elif isinstance(val, (bytes, bytearray)):
            raise ValueError(
                f"argument {idx} is register {location} and is set to an int, not to bytes"
            )
        else:
            self.set_reg(cpu, location, val)

    def get_args(self, cpu: PandaCPU, num: int, convention: str = "default") -> list[int]:
        """Return the first ``num`` arguments of a function, at its entry.

        All of them are read in one call of the core (C: ``panda_read_values``).

        Raises:
            NotImplementedError, ValueError: as :meth:`get_arg`.
        """
        places = self._places.get((num, convention))
        if places is None:
            places = self.argument_places(cpu, num, convention)
        found = self.read_values(places)
        if found is None:
            # One by one: what cannot be read is named.
            return [self.get_arg(cpu, idx, convention) for idx in range(num)]
        return found

    def argument_places(self, cpu: PandaCPU, num: int, convention: str = "default") -> bytes:
        """Return where the first ``num`` arguments are, as ``panda_read_values`` takes it.

        Raises:
            NotImplementedError: as :meth:`get_arg`.
        """
        places = self._places.get((num, convention))
        if places is None:
            numbers = []
            for idx in range(num):
                location = self._location(idx, convention)
                slot = _stack_slot(location)
                numbers.append(
                    self._numbers[location] if slot is None else PandaValue.STACK + slot + 1
                )
            places = self._places[(num, convention)] = pack_places(numbers)
        return places

    def get_regs(self, cpu: PandaCPU, regs: Sequence[Register]) -> list[Any]:
        """Return the values of several registers; names and numbers as in :meth:`get_reg`.

        General registers and ``"PC"`` are read in one call of the core (C:
        ``panda_read_values``); with others among them, one after the other.

        Raises:
            ValueError: if there is no such register.
        """
        key = tuple(regs)
        if key not in self._groups:
            self._groups[key] = self._group(key)
        places = self._groups[key]
        found = None if places is None else self.read_values(places)
        return [self.get_reg(cpu, reg) for reg in regs] if found is None else found

    def _group(self, regs: tuple[Register, ...]) -> bytes | None:
        numbers: list[int] = []
        for reg in regs:
            name, number = self._resolve(reg)
            if name == "PC" or (number is not None and number == self.reg_pc):
                numbers.append(PandaValue.PC)
            elif number is not None:
                numbers.append(number)
            else:
                return None
        return pack_places(numbers)

    def get_retval(self, cpu: PandaCPU, convention: str = "default") -> int:
        """Return what a function returned.

        Of a system call it is a signed number, negative on failure, also where
        the failure is told by another register than the error number's.
        """
        value: int = self.get_reg(cpu, self._retval_register(convention))
        if convention != "syscall":
            return value
        value = self._signed(value)
        return -value if self._syscall_failed(cpu) else value

    def set_retval(
        self, cpu: PandaCPU, val: int, convention: str = "default", failure: bool = False
    ) -> None:
        """Set what a function returns.

        Args:
            failure: says that a system call failed where that is told by
                another register than the value's (MIPS, PowerPC). A negative
                ``val`` is then stored as the positive error number it is there.
        """
        if convention == "syscall" and self._set_syscall_failed(cpu, failure) and failure:
            val = abs(val)
        self.set_reg(cpu, self._retval_register(convention), val)

    def _syscall_failed(self, cpu: PandaCPU) -> bool:
        """Whether a flag beside the value says that a system call failed."""
        return False

    def _set_syscall_failed(self, cpu: PandaCPU, failure: bool) -> bool:
        """Set that flag; False where there is none."""
        return False

    def get_return_value(self, cpu: PandaCPU, convention: str = "default") -> int:
        """Return :meth:`get_retval`; its former name."""
        warnings.warn(
            "get_return_value is deprecated, use get_retval", DeprecationWarning, stacklevel=2
        )
        return self.get_retval(cpu, convention)

    def get_return_address(self, cpu: PandaCPU) -> int:
        """Return where a function returns to, at its entry.

        Raises:
            NotImplementedError: if the architecture does not say where it is.
        """
        if self.reg_retaddr is None:
            raise NotImplementedError(
                f"it is not known where {self.panda.arch_name} keeps a return address"
            )
        value: int = self.get_reg(cpu, self.reg_retaddr)
        return value

    def _location(self, idx: int, convention: str) -> str:
        locations = self.call_conventions.get(convention)
        if locations is None:
            raise NotImplementedError(
                f"{self.panda.arch_name} has no calling convention {convention!r}; "
                f"{_known(self.call_conventions)}"
            )
        if idx < 0:
            raise ValueError(f"arguments are counted from 0, there is none with number {idx}")
        if idx >= len(locations):
            raise NotImplementedError(
                f"convention {convention!r} of {self.panda.arch_name} places "
                f"{len(locations)} arguments; there is no number {idx}"
            )
        return locations[idx]

    def _retval_register(self, convention: str) -> str:
        name = self.reg_retval.get(convention)
        if name is None:
            raise NotImplementedError(
                f"{self.panda.arch_name} has no return value for convention {convention!r}; "
                f"{_known(self.reg_retval)}"
            )
        return name

    def _signed(self, value: int) -> int:
        value &= self._mask
        return value - (self._mask + 1) if value >> (self._width * 8 - 1) else value

    # ---- the stack ----

    def _sp(self, cpu: PandaCPU) -> int:
        if self.reg_sp is None:
            raise NotImplementedError(
                f"it is not known which register of {self.panda.arch_name} is the stack pointer"
            )
        value: int = self.get_reg(cpu, self.reg_sp)
        return value

    def _read_stack(self, cpu: PandaCPU, word: int) -> int:
        size = self._width
        address = self._sp(cpu) + size * word & self._mask
        value: int = self.panda.virtual_memory_read(cpu, address, size, fmt="int")
        return value

    def _write_stack(self, cpu: PandaCPU, word: int, val: int | bytes) -> None:
        size = self._width
        address = self._sp(cpu) + size * word & self._mask
        if isinstance(val, (bytes, bytearray)):
            data = bytes(val)
        else:
            data = self._fit(val, size * 8, "a stack word").to_bytes(
                size, "big" if self.panda.endianness == "big" else "little"
            )
        self.panda.virtual_memory_write(cpu, address, data)

    # ---- for people ----

    def dump_regs(self, cpu: PandaCPU) -> None:
        """Print the program counter and the general registers, and what they point to."""
        print(f"PC: {self.get_pc(cpu):#x}")
        for name in self.registers:
            value = self.get_reg(cpu, name)
            print(f"{name}: {value:#x}{telescope(self.panda, cpu, value)}")

    def dump_stack(self, cpu: PandaCPU, words: int = 8) -> None:
        """Print the words from the stack pointer upward, and what they point to."""
        size = self._width
        base = self._sp(cpu)
        if base == 0:
            warn("the stack pointer is 0: there is no stack at this point")
        assert self.reg_sp is not None
        name = _name_of(self.registers, self.reg_sp)
        for word in range(words):
            place = f"[{name}+{word * size:#04x}] {base + word * size & self._mask:#x}"
            try:
                value = self._read_stack(cpu, word)
            except ValueError:
                print(f"{place}: cannot be read")
            else:
                print(f"{place}: {value:#x}{telescope(self.panda, cpu, value)}")

    def dump_state(self, cpu: PandaCPU) -> None:
        """Print registers and stack."""
        self.dump_regs(cpu)
        self.dump_stack(cpu)


def pack_places(numbers: Iterable[int]) -> bytes:
    """Return numbers of values as the core takes them: 16 bits each, host order."""
    found = list(numbers)
    return struct.pack(f"={len(found)}H", *found)


def _read_one_by_one(places: bytes) -> list[int] | None:
    """Stands for the core's compound read where there is none."""
    return None


def numbered(names: Iterable[str]) -> Mapping[str, int]:
    """Return the names with their numbers, from 0."""
    return MappingProxyType({name: number for number, name in enumerate(names)})


#: Stands for the register file until it is there: every access fails.
_UNBOUND: Any = ()


def _stack_slot(location: str) -> int | None:
    """N of ``stack_N``; None for a register."""
    return int(location[6:]) if location.startswith("stack_") else None


def _known(names: Iterable[str]) -> str:
    text = ", ".join(names)
    return f"known: {text}" if text else "none is defined"


def _name_of(registers: Mapping[str, int], number: int) -> str:
    return next(name for name, value in registers.items() if value == number)
