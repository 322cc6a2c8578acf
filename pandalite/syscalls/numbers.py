"""Numbers and prototypes of system calls, from the generated tables."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

__all__ = ["ARCH_ABIS", "Argument", "Prototype", "calls", "names", "prototypes", "public_names"]

#: The ABIs of an architecture, its own first; in the core's order.
ARCH_ABIS: dict[str, tuple[str, ...]] = {
    "i386": ("i386",),
    "x86_64": ("x86_64", "i386"),
    "arm": ("arm",),
    "aarch64": ("aarch64", "arm"),
    "mips": ("mips_o32",),
    "mipsel": ("mips_o32",),
    "mips64": ("mips_n64", "mips_o32", "mips_n32"),
    "mips64el": ("mips_n64", "mips_o32", "mips_n32"),
    "ppc": ("ppc",),
    "ppc64": ("ppc64", "ppc"),
    "riscv64": ("riscv64",),
}


class Argument(NamedTuple):
    """An argument of a system call.

    Fields:
        kind: ``w`` a long, ``u`` and ``i`` 32 bits without and with a sign, ``q`` 64
            bits; of pointers ``s`` to a string, ``p`` to a structure, ``b`` to other memory.
        type: its type in C.
        name: its name; ``arg0`` and so on where the kernel gives none.
    """

    kind: str
    type: str
    name: str


class Prototype(NamedTuple):
    """A system call as the kernel declares it."""

    #: Without ``sys_``.
    name: str
    args: tuple[Argument, ...]
    #: It does not come back to the instruction that follows.
    noreturn: bool


@cache
def prototypes() -> dict[str, Prototype]:
    """All prototypes by name."""
    from .tables import PROTOTYPES

    found = {}
    for line in PROTOTYPES.splitlines():
        name, _, rest = line[:-1].partition("(")
        words = rest.split(", ") if rest else []
        args = tuple(Argument(w[0], *w[2:].rsplit(":", 1)) for w in words)
        plain = name.rstrip("!")
        found[plain] = Prototype(plain, args, plain != name)
    return found


@cache
def calls(abi: str) -> dict[int, str]:
    """Number -> name of an ABI, e.g. ``"x86_64"``; names are without ``sys_``."""
    from .tables import NUMBERS

    return _read(NUMBERS[abi])


@cache
def public_names(abi: str) -> dict[int, str]:
    """Number -> the name that programs have for a call: ``fstat`` for ``newfstat``."""
    from .tables import PUBLIC

    return {**calls(abi), **_read(PUBLIC[abi])}


def _read(text: str) -> dict[int, str]:
    found = {}
    number = 0
    for word in text.split():
        if word.isdigit():
            number = int(word)
        else:
            found[number] = word
            number += 1
    return found


@cache
def names(arch: str) -> frozenset[str]:
    """The names of all calls of an architecture, of all its ABIs."""
    return frozenset(name for abi in ARCH_ABIS[arch] for name in calls(abi).values())
