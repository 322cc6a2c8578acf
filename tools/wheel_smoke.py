"""Run in an installation of a wheel, by tools/try_wheel.py: does it work?

    python wheel_smoke.py [--gi] [--guest NAME]

Standard library only, any Python from 3.9 on. Loads all core libraries, runs a
guest (x86_64's, unless one is named), and says what it found as JSON in the last
line. With ``--gi`` PyGObject, and with it another glib, is used in the same process
before, during and after.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time

#: Seconds the guest may take for a command, and how many blocks are counted at most: all
#: may be emulated (tools/try_aarch64.py), and then the guest has more ticks than work.
TIMEOUT = 900
MOST = 1_000_000


def use_glib() -> int:
    """Have the process's other glib do something; returns how often it was called."""
    from gi.repository import GLib

    calls = []
    loop = GLib.MainLoop()
    GLib.timeout_add(1, lambda: calls.append(1) or len(calls) < 5)
    GLib.timeout_add(100, loop.quit)
    loop.run()
    table = GLib.Variant("a{sv}", {"name": GLib.Variant("s", "value")})
    assert table.unpack() == {"name": "value"}
    return len(calls)


def main() -> None:
    """Do it all."""
    words = sys.argv[1:]
    other = "--gi" in words
    guest = words[words.index("--guest") + 1] if "--guest" in words else "x86_64"
    calls = [use_glib()] if other else []
    start = time.monotonic()
    import pandalite
    from pandalite import Panda, config
    from pandalite._bindings import loader

    imported = time.monotonic() - start
    place = os.path.dirname(pandalite.__file__)
    # What plugins are compiled against.
    assert (config.include_directory() / "panda" / "plugin.h").is_file()
    assert os.path.dirname(config.include_directory()) == place
    cores = [loader.load(arch) for arch in loader.available()]
    panda = Panda(generic=guest)
    blocks = [0]
    outputs = []

    @panda.cb_before_block_exec
    def count(cpu: object, tb: object) -> None:
        blocks[0] += 1
        if blocks[0] == MOST:
            panda.disable_callback("count")

    @panda.queue_blocking
    def work() -> None:
        panda.revert_sync("root")
        outputs.append(panda.run_serial_cmd("uname -m", timeout=TIMEOUT))
        if other:
            calls.append(use_glib())
        panda.end_analysis()

    panda.run()
    if other:
        calls.append(use_glib())
        with open("/proc/self/maps") as maps:
            assert any("/libglib-2.0.so" in line for line in maps)
    assert outputs == [guest], outputs
    assert blocks[0] > 1000
    enabled = getattr(sys, "_is_gil_enabled", lambda: True)()
    result = {
        "python": sys.version.split()[0],
        "free_threaded": not enabled,
        "place": place,
        "machine": platform.machine(),
        "guest": guest,
        "import": round(imported, 3),
        "cores": len(cores),
        "blocks": blocks[0],
        "glib": calls,
        "seconds": round(time.monotonic() - start, 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
