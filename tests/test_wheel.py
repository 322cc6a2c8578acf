"""The wheel of this checkout: complete, checked, reproducible, and what the tests say of it.

A representative part of the suite is run once more against the installed wheel, in
a directory that has no other pandalite.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest
from ctools import ROOT

sys.path.insert(0, str(ROOT / "tools"))

import build_guests_package
import build_wheel
import check_wheel
import contents
import licences
import sbom
from project import host, load_toml

TIMEOUT = 600

#: Test files that need no more of the checkout than tests/ and examples/.
REPRESENTATIVE = [
    *("test_asyncthread.py", "test_console_guest.py", "test_memory_guest.py"),
    *("test_qcow2.py", "test_snapshots.py"),
]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    return build_wheel.hatchling(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution of this checkout, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    archive = build_wheel.hatchling(ROOT, "sdist", folder)
    with tarfile.open(archive) as tar:
        # Our own file; the filter argument is missing in old Pythons.
        tar.extractall(folder)
    (tree,) = (p for p in folder.iterdir() if p.is_dir())
    return tree


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python whose pandalite is the wheel, and which has the tests' packages.

    The guest of i386 is from the companion package.
    """
    companion = build_guests_package.make(["i386"], tmp_path_factory.mktemp("companion"))
    venv = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True, timeout=120)
    python = venv / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-index"]
    subprocess.run([*pip, "--no-deps", wheel, companion], check=True, timeout=TIMEOUT)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    done = subprocess.run([python, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    # After the wheel's own directory; the .pth file in there does not count.
    packages = Path(done.stdout.strip()) / "packages-of-the-tests.pth"
    packages.write_text(sysconfig.get_path("purelib") + "\n")
    return python


def test_gates(wheel: Path) -> None:
    found = check_wheel.problems(check_wheel.Wheel(wheel))
    assert not {name: lines for name, lines in found.items() if lines}


def test_gates_of_the_companion(tmp_path: Path) -> None:
    made = build_guests_package.make(["i386"], tmp_path)
    found = check_wheel.problems(check_wheel.Wheel(made))
    assert not {name: lines for name, lines in found.items() if lines}


def test_name(wheel: Path) -> None:
    version = check_wheel.build_core.version()
    assert wheel.name == f"pandalite-{version}-py3-none-manylinux_2_28_{host()}.whl"


def test_source_is_complete(sdist: Path) -> None:
    command = ["git", "ls-files", "-z", "--cached"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    names = {name for name in done.stdout.decode().split("\0") if (ROOT / name).is_file()}
    have = {p.relative_to(sdist).as_posix() for p in sdist.rglob("*") if p.is_file()}
    assert not sorted(names - have)
    assert not [name for name in have if name.startswith(("pandalite/_lib", "build/", "dist/"))]


def test_same_bytes_from_the_source(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    # Another directory, without git; the objects are in the build cache. That they
    # too come out the same is what `make wheel-twice` shows, in some ten minutes.
    again = build_wheel.hatchling(sdist, "wheel", tmp_path)
    assert build_wheel.difference(wheel, again) == []


def test_difference_is_seen(wheel: Path, tmp_path: Path) -> None:
    import zipfile

    other = tmp_path / wheel.name
    shutil.copy(wheel, other)
    with zipfile.ZipFile(other, "a") as archive:
        archive.writestr("pandalite/more", "x")
    assert build_wheel.difference(wheel, other) == ["pandalite/more: only in one"]


def test_licences() -> None:
    assert licences.problems() == []


def test_changed_licence_text(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {path: data + b"!" for path, data in licences.wanted().items()}
    texts[licences.TEXTS / "new" / "COPYING"] = b"text"
    monkeypatch.setattr(licences, "wanted", lambda: texts)
    monkeypatch.setattr(licences, "declared", lambda: "GPL-2.0-only")
    found = "\n".join(licences.problems())
    assert "licenses/zlib/LICENSE is not the text that the source has" in found
    assert "licenses/new/COPYING is missing" in found
    assert "license in pyproject.toml should be: GPL-2.0-only AND" in found


def test_licence_that_belongs_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {p: d for p, d in licences.wanted().items() if p.parent.name != "zlib"}
    monkeypatch.setattr(licences, "wanted", lambda: texts)
    assert licences.problems() == ["licenses/zlib/LICENSE belongs to no source"]


def test_bill_of_materials_is_valid() -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = json.dumps(sbom.of_pandalite())
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_bill_of_materials_follows_the_tables() -> None:
    bill = sbom.of_pandalite()
    by_ref = {c["bom-ref"]: c for c in bill["components"]}
    table = load_toml(licences.sources.TABLE)
    for name, entry in table.items():
        if isinstance(entry, dict):
            component = by_ref[f"compiled/{name}"]
            assert component["licenses"] == [{"expression": entry["licence"]}]
            assert re.fullmatch(r"[\d.]+", component["version"])
            for reference in component["externalReferences"]:
                assert len(reference["hashes"][0]["content"]) == 64
    assert by_ref["compiled/qemu"]["version"].startswith(table["qemu"]["series"] + ".")
    for record in contents.firmware_manifest():
        assert by_ref[f"firmware/{record['file']}"]["hashes"][0]["content"] == record["sha256"]
    assert any(ref.startswith("guest/x86_64/linux-image") for ref in by_ref)
    assert "guest/x86_64/busybox-static" in by_ref
    # No time, no place: the same tables give the same bytes.
    assert sbom.of_pandalite() == bill
    assert "timestamp" not in json.dumps(bill)


def clean_environment() -> dict[str, str]:
    unwanted = ("PYTHON", "PANDALITE_LIB", "PANDA_LIB", "PYTEST_")
    return {k: v for k, v in os.environ.items() if not k.startswith(unwanted)}


def test_other_glib_in_the_process(installed: Path, tmp_path: Path) -> None:
    """Another glib, visible to all, does not get in the way of the one that is linked in."""
    import ctypes.util

    library = ctypes.util.find_library("glib-2.0")
    if library is None:
        pytest.skip("there is no libglib-2.0.so here (make test-wheel has one)")
    code = f"""
import ctypes, runpy, sys
glib = ctypes.CDLL({library!r}, mode=ctypes.RTLD_GLOBAL)
glib.g_strdup.restype = ctypes.c_void_p
copied = glib.g_strdup(b"before")
sys.argv = ["count_blocks.py"]
runpy.run_path({str(ROOT / "examples/count_blocks.py")!r})
assert ctypes.string_at(copied) == b"before"
glib.g_free(ctypes.c_void_p(copied))
assert glib.g_main_context_iteration(None, False) in (0, 1)
"""
    done = subprocess.run(
        [installed, "-c", code],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stderr
    assert "basic blocks" in done.stdout


def test_doctor_of_the_installed(installed: Path, tmp_path: Path) -> None:
    command = [installed, "-m", "pandalite", "doctor"]
    env = clean_environment()
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=TIMEOUT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "files as installed" in done.stdout
    # A file that was changed after it was installed is found.
    (file,) = installed.parent.parent.glob("lib/python*/site-packages/pandalite/limits.py")
    text = file.read_bytes()
    try:
        file.write_bytes(text + b"\n")
        done = subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=TIMEOUT
        )
    finally:
        file.write_bytes(text)
    assert done.returncode == 1
    assert "limits.py is not what was installed" in done.stdout


def test_suite_against_the_installed(installed: Path, tmp_path: Path) -> None:
    """The representative part of the suite, with the installed package."""
    for name in ("tests", "examples"):
        shutil.copytree(ROOT / name, tmp_path / name)
    check = tmp_path / "tests" / "test_which.py"
    check.write_text(
        "import sys\nfrom pathlib import Path\nimport pandalite\n\n"
        "def test_it_is_the_installed():\n"
        "    assert Path(sys.prefix) in Path(pandalite.__file__).parents\n"
    )
    files = [check, *(tmp_path / "tests" / name for name in REPRESENTATIVE)]
    options = ["-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, "-c", os.devnull]
    done = subprocess.run(
        [installed, "-m", "pytest", *options, *files],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert re.search(r"\d\d+ passed", done.stdout)
