"""Where sources come from: what the user gives comes first, and is checked."""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

import sources
from project import BuildError


def tarball(path, version):
    with tarfile.open(path, "w:xz") as archive:
        folder = tarfile.TarInfo(f"qemu-{version}")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        archive.addfile(tarfile.TarInfo(f"qemu-{version}/VERSION"))
    return path


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("qemu-10.0.2.tar.xz", "10.0.2"),
        ("qemu_10.0.13+ds.orig.tar.xz", "10.0.13"),
        ("zlib_1.3.dfsg+really1.3.1.orig.tar.gz", "1.3.1"),
        ("glib2.0_2.84.4.orig.tar.xz", "2.84.4"),
    ],
)
def test_version(name, version):
    assert sources._version(Path(name)) == version


def test_given_tarball(tmp_path, monkeypatch):
    monkeypatch.setenv("PANDALITE_SOURCES", str(tmp_path))
    given = tarball(tmp_path / "qemu-10.0.2.tar.xz", "10.0.2")
    source = sources.obtain("qemu")
    assert (source.version, source.tarballs) == ("10.0.2", (given,))
    tree = tmp_path / "tree"
    sources.unpack(source, tree)
    assert (tree / "VERSION").exists()


def test_given_tarball_of_another_series(tmp_path, monkeypatch):
    monkeypatch.setenv("PANDALITE_SOURCES", str(tmp_path))
    tarball(tmp_path / "qemu-9.2.1.tar.xz", "9.2.1")
    with pytest.raises(BuildError, match=r"10\.0\.x only"):
        sources.obtain("qemu")


def test_no_such_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("PANDALITE_SOURCES", str(tmp_path / "missing"))
    with pytest.raises(BuildError, match="not a directory"):
        sources.obtain("qemu")


def test_patch_that_does_not_apply(tmp_path):
    (tmp_path / "file").write_text("one\n")
    bad = tmp_path / "bad.patch"
    bad.write_text("--- a/file\n+++ b/file\n@@ -1 +1 @@\n-two\n+three\n")
    with pytest.raises(BuildError, match="does not apply"):
        sources.patch(tmp_path, [bad])
