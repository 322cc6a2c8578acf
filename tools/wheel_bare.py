"""Run in a bare system, by tools/try_wheel.py: install the wheel, start the demo.

    python3 wheel_bare.py install VENV PIP WHEELS [PACKAGE ...]     as root
    python3 wheel_bare.py demo VENV DEMO    as an ordinary user
    python3 wheel_bare.py all               in a container; try_wheel.py --prepare
                                            fills its directory

Standard library only. The last line of the output is JSON: times and sizes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time


def install(venv: str, pip: str, wheels: str, *more: str) -> dict[str, float]:
    """Make an environment and install pandalite, and what else is named, from files into it."""
    # The system has no ensurepip: pip is run from its own wheel.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    python = os.path.join(venv, "bin", "python")
    options = ["--no-index", "--find-links", wheels, "--no-cache-dir", "--root-user-action=ignore"]
    start = time.monotonic()
    subprocess.run(
        [
            python,
            "-m",
            "pip",
            "install",
            "-q",
            "--disable-pip-version-check",
            *options,
            "pandalite",
            *more,
        ],
        check=True,
        env={**os.environ, "PYTHONPATH": pip},
    )
    took = time.monotonic() - start
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    said = subprocess.run([python, "-c", code], check=True, stdout=subprocess.PIPE)
    site = said.stdout.decode().strip()
    size = 0
    for folder, _, names in os.walk(site):
        if os.path.relpath(folder, site).startswith("pandalite"):
            size += sum(os.path.getsize(os.path.join(folder, name)) for name in names)
    return {"install": round(took, 2), "size": round(size / 1e6, 1)}


def demo(venv: str, program: str) -> dict[str, object]:
    """Run the demo with an empty cache; the time until the guest answered at its prompt."""
    home = os.path.expanduser("~")
    try:
        with open(os.path.join(home, "probe"), "w"):
            raise SystemExit("the home directory can be written, which it should not")
    except OSError:
        pass
    start = time.monotonic()
    with subprocess.Popen(
        [os.path.join(venv, "bin", "python"), "-u", program],
        stdout=subprocess.PIPE,
        cwd="/",
    ) as child:
        assert child.stdout is not None
        prompt = None
        lines = []
        for line in child.stdout:
            lines.append(line.decode(errors="replace").rstrip())
            if prompt is None and lines[-1].startswith("Linux debian-"):
                prompt = time.monotonic() - start
    if child.returncode or prompt is None:
        raise SystemExit(f"the demo ended with status {child.returncode}: {lines}")
    return {
        "prompt": round(prompt, 2),
        "demo": round(time.monotonic() - start, 2),
        "user": os.getuid(),
        "said": lines,
    }


def everything() -> dict[str, object]:
    """Install from the directory this file is in, and run the smoke test."""
    here = os.path.dirname(os.path.abspath(__file__))
    pips = os.path.join(here, "pip", "3.9" if sys.version_info < (3, 10) else "3.13")
    with tempfile.TemporaryDirectory() as scratch:
        venv = os.path.join(scratch, "venv")
        (pip,) = os.listdir(pips)
        made = install(venv, os.path.join(pips, pip), os.path.join(here, "wheels"))
        said = subprocess.run(
            [os.path.join(venv, "bin", "python"), os.path.join(here, "wheel_smoke.py")],
            check=True,
            stdout=subprocess.PIPE,
            cwd=scratch,
            env={**os.environ, "PANDALITE_HOME": os.path.join(scratch, "home")},
        )
    ran = json.loads(said.stdout.decode().splitlines()[-1])
    return {**made, **ran}


COMMANDS = {"install": install, "demo": demo, "all": everything}

if __name__ == "__main__":
    print(json.dumps(COMMANDS[sys.argv[1]](*sys.argv[2:])))
