"""What the callbacks of the plugin syscalls2 are called with."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pandalite.ppp import Signature, declare

from .numbers import names, prototypes

if TYPE_CHECKING:
    from pandalite.callbacks import Callbacks

_KINDS = {"u": "u32", "i": "s32", "q": "u64"}

_NAME = re.compile(r"on_(?:sys_(\w+)|(ARM_\w+))_(?:enter|return)")


def signature(panda: Callbacks, name: str) -> Signature | None:
    """The arguments of ``on_sys_<name>_enter`` and ``_return``; None: no such call."""
    match = _NAME.fullmatch(name)
    if not match:
        return None
    call = match[1] or match[2]
    if call not in names(panda.arch_name):
        return None
    args = tuple((arg.name, _KINDS.get(arg.kind, "ptr")) for arg in prototypes()[call].args)
    return Signature((("cpu", "cpu"), ("pc", "ptr"), *args))


declare("syscalls2", signature)
