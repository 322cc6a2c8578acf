"""Make an entry for an image of one's own: the command ``add``."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from ..errors import ImageError
from . import overlay, qcow2, roots, user_images
from .catalogue import SNAPSHOT

__all__ = ["PROBE_TIMEOUT", "add", "probe"]

#: Seconds a guest may take to boot and answer.
PROBE_TIMEOUT = 600.0


def add(
    name: str,
    *,
    qcow: Path,
    arch: str,
    mem: str | None = None,
    prompt: str | None = None,
    words: list[str] | None = None,
    login: tuple[str, str] | None = None,
    disk: str | None = None,
    libpanda_path: str | None = None,
    timeout: float = PROBE_TIMEOUT,
) -> tuple[Path, dict[str, Any]]:
    """Write an entry for a disk image; returns its file and what is in it.

    Without ``prompt`` the guest is booted, on a disk of its own on top of the
    image, to find it. ImageError if anything is wrong; then nothing is written.
    """
    name = name.lower()
    path = qcow.absolute()
    facts: dict[str, Any] = {
        "arch": arch,
        "qcow": str(path),
        "default_mem": mem or "128M",
        "prompt": prompt,
        "extra_args": list(words or []),
        "login": list(login) if login else None,
        "disk": disk,
        "snapshot": SNAPSHOT,
    }
    table = {key: value for key, value in facts.items() if value}
    _check(name, table)
    qcow2.validate(path)
    if prompt is None:
        prompt = probe(name, table, libpanda_path, timeout)
        table = {**table, "prompt": prompt}
    return user_images.write(name, table), table


def _check(name: str, table: dict[str, Any]) -> None:
    """What can be told to be wrong before the guest is booted for minutes."""

    def where(key: str) -> str:
        return f"the new entry {name!r}"

    user_images.parse_table(name, table, where, Path.cwd())
    if name in user_images.load_all()[0]:
        raise ImageError(
            f"there is an image {name!r}: choose another name, or delete that one with "
            f"`python -m pandalite.qcows delete {name}`"
        )


def probe(name: str, table: dict[str, Any], libpanda_path: str | None, timeout: float) -> str:
    """Boot an image in a child process and find its prompt, as a regular expression."""
    from .._bindings.loader import find_library

    library = find_library(table["arch"], libpanda_path)
    disk = overlay.run_directory() / f"add-{name}-{os.getpid()}.qcow2"
    with contextlib.ExitStack() as stack:
        stack.callback(disk.unlink, missing_ok=True)
        qcow2.create_on_top(disk, table["qcow"])
        request = {
            "arch": table["arch"],
            "library": str(library),
            "qcow": str(disk),
            "interface": table.get("disk", ""),
            "mem": table["default_mem"],
            "extra_args": table.get("extra_args", []),
            "login": table.get("login"),
            "probe": True,
            "timeout": timeout,
        }
        text = roots.boot(request, name, timeout + 30)
    try:
        return str(json.loads(text.splitlines()[-1])["prompt"])
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ImageError(f"the process that boots {name} said something else: {text!r}") from error
