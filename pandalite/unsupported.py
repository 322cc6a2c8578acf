"""What PyPANDA has and pandalite does not have yet.

One table: the methods below raise, and the README's status table lists them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from .errors import UnsupportedFeatureError

#: Feature -> the methods of Panda that need it.
FEATURES: dict[str, tuple[str, ...]] = {
    "pandalogs": ("set_pandalog",),
    "taint analysis": (
        "taint_enabled",
        "taint_enable",
        "taint_label_reg",
        "taint_label_ram",
        "taint_check_reg",
        "taint_check_ram",
        "taint_check_laddr",
        "taint_get_reg",
        "taint_get_ram",
        "taint_get_laddr",
        "taint_sym_enable",
        "taint_sym_label_ram",
        "taint_sym_label_reg",
        "taint_sym_query_ram",
        "taint_sym_query_reg",
        "taint_sym_path_constraints",
        "taint_sym_branch_meta",
        "string_to_solver",
        "string_to_condition",
        "string_to_expr",
    ),
    "LLVM translation": (
        "enable_llvm",
        "disable_llvm",
        "enable_llvm_helpers",
        "disable_llvm_helpers",
    ),
    "Python peripherals": (
        "register_pyperipheral",
        "unregister_pyperipheral",
        "pyperiph_read_cb",
        "pyperiph_write_cb",
    ),
    "the volatility bridge": (
        "make_panda_file_handler",
        "get_volatility_symbols",
        "run_volatility",
    ),
    "disassembly": ("disas2",),
}

#: Attributes of PyPANDA's Panda that are not there: name -> why, and what instead.
ATTRIBUTES: dict[str, str] = {
    "ffi": "cffi is not used: structures are ctypes objects, read as attributes",
    "C": "cffi is not used: libc is ctypes.CDLL(None)",
    "pyplugins": "PyPlugins are not there yet",
    "cosi": "use panda.os, which needs no table of symbols",
    "qlog": "control of QEMU's log is not there yet: use extra_args=['-d', ...]",
}


def _make(name: str, feature: str) -> Callable[..., NoReturn]:
    def method(self: object, *args: Any, **kwargs: Any) -> NoReturn:
        raise UnsupportedFeatureError(f"Panda.{name}: pandalite does not have {feature} yet")

    method.__name__ = name
    method.__doc__ = f"Not available yet: needs {feature}."
    return method


class Unsupported:
    """The methods of FEATURES; each raises UnsupportedFeatureError."""


for _feature, _names in FEATURES.items():
    for _name in _names:
        setattr(Unsupported, _name, _make(_name, _feature))


def _make_property(name: str, reason: str) -> property:
    def getter(self: object) -> NoReturn:
        raise UnsupportedFeatureError(f"Panda.{name}: {reason}")

    getter.__doc__ = f"Not available: {reason}."
    return property(getter)


for _name, _reason in ATTRIBUTES.items():
    setattr(Unsupported, _name, _make_property(_name, _reason))
