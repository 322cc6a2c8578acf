"""The tools around a release: sources to publish, systems to try a wheel in."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from ctools import ROOT

sys.path.insert(0, str(ROOT / "tools"))

import contents
import gather_sources
import project
import try_aarch64
import try_wheel
from debian import ArchiveError
from project import BuildError


class FakeArchive:
    """A mirror that has one file of two, and one package of two."""

    def __init__(self, suite: str, architecture: str, cache: Path) -> None:
        self.downloads = cache

    def source_names(self, package: str) -> list[str]:
        if package.startswith("gone="):
            raise ArchiveError("E: Unable to find a source package for gone")
        return ["bash_5.2.orig.tar.gz", "bash_5.2-1.debian.tar.xz"]

    def source(self, package: str) -> list[Path]:
        (self.downloads / "bash_5.2.orig.tar.gz").write_text("bash")
        raise ArchiveError("E: Failed to fetch some archives.")


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(gather_sources, "Archive", FakeArchive)
    monkeypatch.setattr(gather_sources, "cache_dir", lambda: tmp_path)
    table = {("guest", "suite"): {"bash": "5.2-1", "gone": "1:2.0-3"}}
    monkeypatch.setattr(gather_sources, "wanted", lambda guests: table)
    monkeypatch.delenv("PANDALITE_SOURCES", raising=False)
    return tmp_path


def test_missing_sources_are_named(mirror: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gather_sources.main(["--only", "guest", "--output", str(mirror / "out")]) == 1
    said = capsys.readouterr().err
    assert "bash_5.2-1.debian.tar.xz, gone_2.0-3.dsc" in said
    assert not (mirror / "out").exists()


def test_missing_sources_can_be_given(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = mirror / "given"
    given.mkdir()
    for name in ("bash_5.2-1.debian.tar.xz", "gone_2.0-3.dsc"):
        (given / name).write_text(name)
    monkeypatch.setenv("PANDALITE_SOURCES", str(given))
    made = []
    for folder in ("one", "two"):
        assert gather_sources.main(["--only", "guest", "--output", str(mirror / folder)]) == 0
        (archive,) = (mirror / folder).iterdir()
        made.append(archive)
    assert made[0].read_bytes() == made[1].read_bytes()
    with tarfile.open(made[0]) as tar:
        names = [name.partition("/")[2] for name in tar.getnames()]
        tar.extractall(mirror)
    assert "guest/bash_5.2.orig.tar.gz" in names and "MISSING" not in names
    folder = mirror / made[0].name[: -len(".tar")]
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=folder, check=True)


def test_incomplete_sources_say_so(mirror: Path) -> None:
    arguments = ["--only", "guest", "--incomplete", "--output", str(mirror / "out")]
    assert gather_sources.main(arguments) == 0
    (archive,) = (mirror / "out").iterdir()
    with tarfile.open(archive) as tar:
        member = tar.extractfile(archive.name[: -len(".tar")] + "/MISSING")
        assert member is not None
        assert member.read() == b"bash_5.2-1.debian.tar.xz\ngone_2.0-3.dsc\n"


def test_sources_of_the_wheel() -> None:
    table = gather_sources.wanted(["x86_64"])
    parts = {part for part, _ in table}
    assert parts == {"firmware", "guest"}
    packages = {name for names in table.values() for name in names}
    assert {"seabios", "qemu", "linux", "busybox", "glibc", "bash"} <= packages


def test_versions_of_sources() -> None:
    assert gather_sources.source_version("5.2.15-2+b13") == "5.2.15-2"
    assert gather_sources.source_version("1.16.3-2") == "1.16.3-2"
    package: dict[str, Any] = {"built_using": "glibc (= 2.36-9+deb12u7), zlib (= 1:1.2-3)"}
    assert gather_sources.built_using(package) == {"glibc": "2.36-9+deb12u7", "zlib": "1:1.2-3"}
    assert gather_sources.built_using({}) == {}


def test_pythons_are_found() -> None:
    found = try_wheel.pythons()
    assert found
    for version, python in found:
        done = subprocess.run([python, "-V"], capture_output=True, text=True, timeout=60)
        assert version.rstrip("t") in done.stdout


def test_bars() -> None:
    good = {"install": 4.9, "prompt": 14.0, "size": 200.0}
    assert list(try_wheel.check_bars("x", good)) == []
    slow = {**good, "prompt": 15.1}
    assert list(try_wheel.check_bars("x", slow)) == ["x: prompt is 15.1, more than 15"]


def test_environment_of_a_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PANDALITE_LIB", "/x")
    env = try_wheel.clean_environment(PANDALITE_HOME="/home")
    assert not {"PYTHONPATH", "PANDALITE_LIB"} & set(env)
    assert env["PANDALITE_HOME"] == "/home" and "PATH" in env


def test_no_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(try_wheel, "ROOT", tmp_path)
    (tmp_path / "dist").mkdir()
    name = f"pandalite-1-py3-none-{contents.platform_tag('x86_64')}.whl"
    (tmp_path / "dist" / name).touch()
    assert try_wheel.newest_wheel("x86_64").name == name
    with pytest.raises(BuildError, match="make wheel HOST=aarch64"):
        try_wheel.newest_wheel("aarch64")


def test_host_to_build_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PANDALITE_HOST", raising=False)
    assert project.host() == project.native()
    monkeypatch.setenv("PANDALITE_HOST", "")
    assert project.host() == project.native()
    monkeypatch.setenv("PANDALITE_HOST", "aarch64")
    assert project.host() == "aarch64"
    monkeypatch.setenv("PANDALITE_HOST", "s390x")
    with pytest.raises(BuildError, match="built on Linux for x86_64, aarch64; this is linux s390x"):
        project.host()


def test_libraries_for_another_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """They do not replace those that this checkout loads, and get their place in the wheel."""
    monkeypatch.setattr(project, "native", lambda: "x86_64")
    assert project.library_dir("x86_64") == project.LIB
    other = project.library_dir("aarch64")
    assert other != project.LIB and other.parent == ROOT / "build"
    monkeypatch.setenv("PANDALITE_HOST", "aarch64")
    monkeypatch.setattr(Path, "is_file", lambda self: True)
    places = contents.built_files()
    assert places[other / "libpanda-arm.so"] == "pandalite/_lib/libpanda-arm.so"
    assert project.LIB / "libpanda-arm.so" not in places
    assert len(set(places.values())) == len(places)


def test_emulated_python(tmp_path: Path) -> None:
    """The script that stands in for the interpreter passes everything on."""
    root = tmp_path / "a root"
    python = root / "usr/bin/python3"
    python.parent.mkdir(parents=True)
    python.write_text("the interpreter")
    qemu = tmp_path / "qemu"
    qemu.write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    qemu.chmod(0o755)
    try_aarch64._wrap(python, root, qemu)
    linked = tmp_path / "python"
    linked.symlink_to(python)
    done = subprocess.run([linked, "-c", "a b"], capture_output=True, text=True, timeout=60)
    real = root / "usr/bin/python3.aarch64"
    assert done.stdout == f"-L|{root}|-0|{linked}|{real}|-c|a b|"
    assert real.read_text() == "the interpreter"
