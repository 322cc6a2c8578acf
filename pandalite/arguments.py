"""The machine's command line, from the arguments of ``Panda(...)``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .errors import MachineError, UnsupportedFeatureError

#: The id of the console's character device.
CONSOLE = "pandalite-serial"

#: Options that would turn the host process into something else.
_REFUSED = {
    "daemonize": "it would fork the Python process",
    "chroot": "it would change the Python process",
    "runas": "it would change the Python process",
    "run-with": "it would change the Python process",
    "enable-kvm": "only the TCG emulator is built in: guest code has to be translated to be seen",
}

_DISPLAY_OPTIONS = {"display", "nographic", "vnc", "spice", "curses", "sdl"}

#: Options with a file name: a missing file is named before QEMU meets it.
_FILE_OPTIONS = {"kernel", "initrd", "dtb", "bios"}


def split_extra_args(extra_args: str | Sequence[str] | None) -> list[str]:
    """Accept a string (split like a shell does) or a list of words.

    Raises:
        ValueError: unbalanced quotes, or words that are no text.
    """
    if extra_args is None:
        return []
    if isinstance(extra_args, str):
        try:
            return shlex.split(extra_args)
        except ValueError as error:
            raise ValueError(f"extra_args {extra_args!r} cannot be split: {error}") from None
    words = list(extra_args)
    for word in words:
        if not isinstance(word, str):
            raise ValueError(f"extra_args has to hold strings, not {word!r}")
    return words


def option_names(words: Sequence[str]) -> set[str]:
    """Names of the options among the words, without dashes."""
    return {w.lstrip("-") for w in words if w.startswith("-") and len(w) > 1}


def check_words(words: Sequence[str]) -> None:
    """Refuse what cannot work inside a Python process.

    Raises:
        UnsupportedFeatureError: an option of that kind, or more than one CPU.
        MachineError: a file that is not there.
    """
    for word, following in zip(words, [*words[1:], ""]):
        if not word.startswith("-"):
            continue
        name = word.lstrip("-")
        if name in _REFUSED:
            raise UnsupportedFeatureError(f"the option {word} is not possible: {_REFUSED[name]}")
        if name == "smp" and _cpu_count(following) > 1:
            raise UnsupportedFeatureError(
                f"-smp {following}: only one virtual CPU is supported; remove the option"
            )
        if name in _FILE_OPTIONS and ("/" in following) and not Path(following).is_file():
            raise MachineError(f"{word} {following}: there is no such file")


def _cpu_count(value: str) -> int:
    counts = {"cpus": 1}
    for index, part in enumerate(value.split(",")):
        key, equals, number = part.partition("=")
        if not equals and index == 0:
            key, number = "cpus", key
        if number.isdigit():
            counts[key] = int(number)
    product = 1
    for key in ("sockets", "dies", "clusters", "cores", "threads"):
        product *= counts.get(key, 1)
    return max(counts["cpus"], product)


class PluginWords(NamedTuple):
    """What the words of PANDA's command line ask for besides a machine."""

    #: Words that are QEMU's.
    rest: list[str]
    #: Names or files of plugins, and their arguments.
    plugins: list[tuple[str, list[str]]]
    #: Name of the guest's system; None without one.
    os_name: str | None


def plugin_words(words: Sequence[str]) -> PluginWords:
    """Take out PANDA's own options: ``-panda``, ``-panda-arg``, ``-panda-plugin``, ``-os``.

    Raises:
        ValueError: one of them has no value, or none that makes sense.
    """
    rest: list[str] = []
    plugins: list[tuple[str, list[str]]] = []
    given: dict[str, list[str]] = {}
    os_name: str | None = None
    left = iter(words)
    for word in left:
        name = word.lstrip("-") if word.startswith("-") else ""
        if name not in ("panda", "panda-arg", "panda-plugin", "os"):
            rest.append(word)
            continue
        value = next(left, "")
        if not value:
            raise ValueError(f"the option {word} needs a value")
        if name == "os":
            os_name = value
        elif name == "panda-plugin":
            plugins.append((value, []))
        elif name == "panda-arg":
            plugin, colon, argument = value.partition(":")
            if not colon or not plugin or not argument:
                raise ValueError(f"{word} {value}: give it as plugin:key=value")
            given.setdefault(plugin, []).append(argument)
        else:
            for one in filter(None, value.split(";")):
                plugin, _, more = one.partition(":")
                plugins.append((plugin, [text for text in more.split(",") if text]))
    return PluginWords(
        rest, [(plugin, [*args, *given.get(plugin, [])]) for plugin, args in plugins], os_name
    )


def machine_arguments(
    *,
    library: str,
    firmware: Sequence[str],
    disk: Sequence[str],
    extra: Sequence[str],
    mem: str,
    serial_fd: int | None,
    raw_monitor: bool = False,
) -> list[str]:
    """Put the command line together, in PyPANDA's order.

    Args:
        library: stands for the program's name.
        firmware: directories to look for firmware in.
        disk: words that attach the disk image.
        extra: the user's words.
        mem: size of RAM, as for ``-m``.
        serial_fd: one end of a socket pair for the first serial port.
        raw_monitor: leave the terminal to QEMU's monitor with ``-nographic``.
    """
    names = option_names(extra)
    words = [library]
    for directory in firmware:
        words += ["-L", directory]
    words += [*disk, *extra, "-m", mem]
    if serial_fd is not None:
        words += ["-chardev", f"socket,id={CONSOLE},fd={serial_fd}"]
        words += ["-serial", f"chardev:{CONSOLE}"]
    terminal = raw_monitor and "nographic" in names
    if not terminal and not names & {"monitor", "mon"}:
        words += ["-monitor", "none"]
    if not names & _DISPLAY_OPTIONS:
        words += ["-display", "none"]
    if "accel" not in names and not any("accel=" in w for w in extra):
        words += ["-accel", "tcg,thread=single"]
    return words
