"""pandalite/_bindings/loader.py: which library is loaded, and what if it cannot be."""

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path

import pytest
from ctools import compile_c

from pandalite._bindings import arches, functions, loader
from pandalite.errors import CoreLibraryError, UnknownArchitectureError


def build(folder: Path, arch: str, leave_out: tuple[str, ...] = ()) -> Path:
    """A library with the functions of a core library, which do nothing."""
    source = f'const char *panda_arch_name(void) {{ return "{arch}"; }}\n'
    for name in functions.PROTOTYPES:
        if name != "panda_arch_name" and name not in leave_out:
            source += f"int {name}(void) {{ return 7; }}\n"
    target = folder / loader.library_name(arch)
    result = compile_c(source, folder, "-shared", "-fPIC", "-nostdlib", "-o", str(target))
    assert result.returncode == 0, result.stderr
    return target


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with toy libraries for both architectures."""
    folder = tmp_path_factory.mktemp("libraries")
    build(folder, "x86_64")
    build(folder, "i386")
    return folder


@pytest.fixture(autouse=True)
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replace pandalite/_lib by an empty directory, and clear the environment."""
    folder = tmp_path / "_lib"
    folder.mkdir()
    monkeypatch.setattr(loader, "LIBRARY_DIR", folder)
    monkeypatch.delenv("PANDALITE_LIB", raising=False)
    monkeypatch.delenv("PANDA_LIB", raising=False)
    return folder


def test_installed(made: Path, own_directory: Path) -> None:
    shutil.copy(made / "libpanda-i386.so", own_directory)
    core = loader.load("i386")
    assert core.path == own_directory / "libpanda-i386.so"
    assert core.arch == ("i386", 32, True, 4)
    assert core.panda_arch_name() == b"i386"
    assert core.panda_run() == 7
    assert loader.available() == ["i386"]


def test_argument_beats_environment(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PANDALITE_LIB", "/nonexistent")
    assert loader.load("x86_64", made).path.name == "libpanda-x86_64.so"
    assert loader.load("x86_64", made / "libpanda-x86_64.so").arch.bits == 64


@pytest.mark.parametrize("what", ["", "libpanda-x86_64.so"])
def test_environment(made: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setenv("PANDALITE_LIB", str(made / what))
    monkeypatch.setenv("PANDA_LIB", "/nonexistent")
    assert loader.load("x86_64").path == (made / "libpanda-x86_64.so").resolve()


def test_environment_of_pypanda(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PANDA_LIB", str(made / "libpanda-x86_64.so"))
    assert loader.load("x86_64").panda_arch_name() == b"x86_64"
    monkeypatch.setenv("PANDA_LIB", str(made))
    with pytest.raises(CoreLibraryError, match=r"PANDA_LIB is .* which is not a file"):
        loader.load("x86_64")


def test_relative_path(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)
    assert loader.load("i386", "libpanda-i386.so").path.is_absolute()


def test_unknown_architecture() -> None:
    with pytest.raises(UnknownArchitectureError) as caught:
        loader.load("vax")
    assert "unknown guest architecture 'vax'; known: x86_64, i386" in str(caught.value)


def test_not_installed(made: Path, own_directory: Path) -> None:
    shutil.copy(made / "libpanda-i386.so", own_directory)
    with pytest.raises(CoreLibraryError) as caught:
        loader.load("x86_64")
    message = str(caught.value)
    assert "libpanda-x86_64.so does not exist" in message
    assert f"libraries in {own_directory}: i386" in message
    assert "`make core ARCH=x86_64`" in message


def test_no_global_fallback(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(made))
    with pytest.raises(CoreLibraryError, match="not installed"):
        loader.load("x86_64")


def test_directory_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PANDALITE_LIB", str(tmp_path))
    with pytest.raises(CoreLibraryError) as caught:
        loader.load("x86_64")
    assert f"PANDALITE_LIB names the directory {tmp_path}" in str(caught.value)
    assert f"libraries in {tmp_path}: none" in str(caught.value)


def test_wrong_architecture(made: Path) -> None:
    with pytest.raises(CoreLibraryError, match="is a core library for i386, not for x86_64"):
        loader.load("x86_64", made / "libpanda-i386.so")


def test_damaged(made: Path, tmp_path: Path) -> None:
    broken = tmp_path / "libpanda-x86_64.so"
    broken.write_bytes((made / broken.name).read_bytes()[:100])
    with pytest.raises(CoreLibraryError, match=r"cannot be loaded: .*make core ARCH=x86_64"):
        loader.load("x86_64", broken)


def test_older_library(tmp_path: Path) -> None:
    build(tmp_path, "x86_64", leave_out=("panda_run", "panda_pause"))
    with pytest.raises(CoreLibraryError, match="it lacks panda_run, panda_pause;"):
        loader.load("x86_64", tmp_path)


def test_local_symbols(made: Path) -> None:
    loader.load("x86_64", made)
    with pytest.raises(AttributeError):
        ctypes.CDLL(None).panda_arch_name  # noqa: B018


def test_fast_namespace(made: Path) -> None:
    core = loader.load("x86_64", made)
    assert set(vars(core.fast)) == functions.NONBLOCKING
    for name in functions.NONBLOCKING:
        function = getattr(core.fast, name)
        assert function.argtypes == getattr(core, name).argtypes
    assert not hasattr(core.fast, "panda_run")


def test_two_libraries(made: Path) -> None:
    cores = [loader.load(arch, made) for arch in ("x86_64", "i386")]
    assert [core.panda_arch_name() for core in cores] == [b"x86_64", b"i386"]


def test_env_struct(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ctypes.sizeof(loader.env_struct("x86_64")) > ctypes.sizeof(loader.env_struct("i386"))
    vax = arches.Architecture("vax", 32, True, 4)
    monkeypatch.setitem(arches.ARCHITECTURES, "vax", vax)
    with pytest.raises(CoreLibraryError, match="no CPU state layout for vax"):
        loader.env_struct("vax")


def test_home_is_expanded(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", os.fspath(made))
    assert loader.load("x86_64", "~").path.parent == made.resolve()
