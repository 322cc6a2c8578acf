"""Recordings: their files, and what is known of them. None of it needs the core.

``docs/recording-format.md`` describes the file.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .names import SUFFIX, recording_path
from .report import Report, divergence, failure, report

if TYPE_CHECKING:
    from .check import Verdict, verify
    from .entries import Device, Entry, devices, read_log
    from .facts import Recording, existing, read_recording

__all__ = [
    "SUFFIX",
    "Device",
    "Entry",
    "Recording",
    "Report",
    "Verdict",
    "devices",
    "divergence",
    "existing",
    "failure",
    "read_log",
    "read_recording",
    "recording_path",
    "report",
    "verify",
]

_HOMES = {
    "Device": "entries",
    "Entry": "entries",
    "Recording": "facts",
    "Verdict": "check",
    "devices": "entries",
    "existing": "facts",
    "read_log": "entries",
    "read_recording": "facts",
    "verify": "check",
}


def __getattr__(name: str) -> Any:
    """Import on first use: archives are nothing for who only runs a guest."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value
