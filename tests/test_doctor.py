"""``python -m pandalite doctor`` on this system, and on systems that are broken on purpose."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from guest import run_case

from pandalite import __main__ as command
from pandalite import doctor

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 180


def run(
    *arguments: str,
    root: Path = ROOT,
    before: Callable[[], None] | None = None,
    prefix: tuple[str, ...] = (),
    **variables: str,
) -> tuple[int, str]:
    """Run the command; its status and output."""
    unwanted = ("PANDALITE_", "PANDA_", "PYTHONPATH")
    env = {k: v for k, v in os.environ.items() if not k.startswith(unwanted)}
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "pandalite", *arguments],
        cwd=root,
        env={**env, "PYTHONPATH": str(root), **variables},
        preexec_fn=before,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


def results(*arguments: str, **options: Any) -> dict[str, doctor.Result]:
    """The results by name; the exit status has to fit."""
    status, output = run("doctor", "--json", *arguments, **options)
    found = [doctor.Result(**entry) for entry in json.loads(output)]
    assert status == any(r.status == doctor.FAILED for r in found)
    for result in found:
        # Whatever is not well has a remedy.
        assert (result.status == doctor.OK) == (not result.remedy), result
    return {result.name: result for result in found}


def failed(found: dict[str, doctor.Result]) -> set[str]:
    return {name for name, result in found.items() if result.status == doctor.FAILED}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A directory with a copy of the package; large files are links."""
    target = tmp_path / "copy"

    def link(source: str, place: str) -> None:
        if "/_lib/" in source:
            os.symlink(source, place)
        else:
            shutil.copy(source, place)

    ignore = shutil.ignore_patterns("__pycache__", "*.part")
    shutil.copytree(ROOT / "pandalite", target / "pandalite", copy_function=link, ignore=ignore)
    return target


def test_good_system(tmp_path: Path) -> None:
    found = results("--boot", PANDALITE_HOME=str(tmp_path / "new"))
    assert not failed(found), found
    assert len(found) == len(doctor.CHECKS)
    assert "the guest answered" in found["self-test"].text


def test_good_system_in_words(tmp_path: Path) -> None:
    status, output = run("doctor", PANDALITE_HOME=str(tmp_path / "new"))
    assert status == 0
    assert "pandalite works here" in output
    # No snapshot is made unasked.
    assert "doctor --boot" in output
    assert not list((tmp_path / "new").glob("images/*"))


def test_missing_library(copy: Path) -> None:
    (copy / "pandalite/_lib/libpanda-arm.so").unlink()
    found = results(root=copy)
    assert failed(found) == {"libraries"}
    assert "has none for arm" in found["libraries"].text
    assert "pip install --force-reinstall" in found["libraries"].remedy
    assert "because of: libraries" in found["self-test"].text


def test_no_libraries(copy: Path) -> None:
    for file in (copy / "pandalite/_lib").glob("*.so"):
        file.unlink()
    assert "there are no core libraries" in results(root=copy)["libraries"].text


@pytest.mark.parametrize("size", [100, 4 << 20])
def test_truncated_library(copy: Path, size: int) -> None:
    # The larger one has its headers, and crashes who loads it.
    file = copy / "pandalite/_lib/libpanda-arm.so"
    data = file.read_bytes()[:size]
    file.unlink()
    file.write_bytes(data)
    found = results(root=copy)
    assert failed(found) == {"libraries"}
    assert "libpanda-arm.so cannot be loaded" in found["libraries"].text
    assert "install pandalite again" in found["libraries"].remedy


def test_given_library_directory(tmp_path: Path) -> None:
    found = results(PANDALITE_LIB=str(tmp_path))
    assert failed(found) == {"libraries"}
    assert found["libraries"].remedy.startswith("unset PANDALITE_LIB")


def test_damaged_firmware_and_guest(copy: Path) -> None:
    for name in ("firmware/bios-256k.bin", "guests/x86_64/kernel"):
        file = copy / "pandalite/_lib" / name
        data = bytearray(file.read_bytes())
        data[1000] ^= 1
        file.unlink()
        file.write_bytes(data)
    found = results(root=copy)
    assert failed(found) == {"firmware", "guest"}
    assert "bios-256k.bin is damaged" in found["firmware"].text
    assert "kernel is damaged" in found["guest"].text


def test_cache_that_is_a_file(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("")
    found = results(PANDALITE_HOME=str(place))
    assert failed(found) == {"cache"}
    assert "set PANDALITE_HOME" in found["cache"].remedy


def mounted(tmp_path: Path, options: str) -> tuple[str, ...]:
    """What to put before a command so that a small file system is at tmp_path/disk."""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f"mount -t tmpfs -o {options} none '{disk}' && exec \"$@\""
    prefix = ("unshare", "--mount", "sh", "-c", script, "sh")
    done = subprocess.run([*prefix, "true"], capture_output=True)
    if done.returncode:
        pytest.skip("file systems cannot be mounted here")
    return prefix


def test_full_cache(tmp_path: Path) -> None:
    prefix = mounted(tmp_path, "size=2m")
    found = results(prefix=prefix, PANDALITE_HOME=str(tmp_path / "disk/home"))
    assert failed(found) == {"cache"}
    assert "2 MB free" in found["cache"].text
    assert "gc --max-size" in found["cache"].remedy


def test_read_only_cache(tmp_path: Path) -> None:
    prefix = mounted(tmp_path, "size=400m,ro")
    found = results(prefix=prefix, PANDALITE_HOME=str(tmp_path / "disk/home"))
    assert failed(found) == {"cache"}
    assert "Read-only file system" in found["cache"].text


def test_libraries_on_a_noexec_file_system(tmp_path: Path) -> None:
    prefix = mounted(tmp_path, "size=400m,noexec")
    place = tmp_path / "disk"
    # Not the guests built beside the tests, which are larger than the file system.
    copy = f"tar -C '{ROOT}' --exclude='*_debian*' -cf - pandalite | tar -C '{place}' -xf -"
    script = f"mkdir -p '{place}' && {copy} && cd '{place}' && exec \"$@\""
    found = results(prefix=(*prefix, "sh", "-c", script, "sh"), PYTHONPATH=str(place))
    assert failed(found) == {"libraries"}
    assert "noexec" in found["libraries"].remedy


def refuse_writable_code() -> None:
    """Have the kernel refuse mprotect() for memory that is writable and executable."""
    load, jump, ret = 0x20, 0x15, 0x06  # BPF: LD W ABS, JMP JEQ K, RET K
    alu_and = 0x54
    mprotect, rwx, allow, refuse = 10, 7, 0x7FFF0000, 0x00050000 | 13  # EACCES
    program = [
        (load, 0, 0, 0),  # the number of the system call
        (jump, 0, 4, mprotect),
        (load, 0, 0, 16 + 2 * 8),  # its third argument
        (alu_and, 0, 0, rwx),
        (jump, 0, 1, rwx),
        (ret, 0, 0, refuse),
        (ret, 0, 0, allow),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    filter_program = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    set_seccomp, set_no_new_privileges, mode_filter = 22, 38, 2
    assert prctl(set_no_new_privileges, 1, 0, 0, 0) == 0
    assert prctl(set_seccomp, mode_filter, filter_program, 0, 0) == 0


def test_code_memory_refused() -> None:
    found = results(before=refuse_writable_code)
    assert failed(found) == {"code memory"}
    assert "seccomp" in found["code memory"].text
    assert "PROT_EXEC" in found["code memory"].remedy
    assert doctor.SPLIT in found["code memory"].remedy
    assert "because of: code memory" in found["self-test"].text


def case_two_mappings() -> list[Any]:
    """What the remedy says: machine code, in a process that refuses writable code."""
    from pandalite import Panda

    refuse_writable_code()
    panda: Any = Panda("x86_64", extra_args=f"-M configurable -nographic {doctor.SPLIT}")

    def setup(cpu: Any) -> None:
        panda.map_memory("code", 0x1000, 0x400000)
        panda.physical_memory_write(0x400000, bytes.fromhex("48ffc048ffc0"))
        panda.arch.set_reg(cpu, "RAX", 0)
        panda.arch.set_pc(cpu, 0x400000)

    panda.cb_after_machine_init(setup)
    end = panda.run_until(address=0x400006, timeout=20)
    return [end.reason, panda.arch.get_reg(panda.get_cpu(), "RAX")]


def test_remedy_of_refused_code_memory() -> None:
    assert run_case(case_two_mappings) == ["address", 2]


def test_memory_deny_write_execute() -> None:
    set_mdwe, refuse_gain = 65, 1
    prctl = ctypes.CDLL(None).prctl

    def refuse() -> None:
        assert prctl(set_mdwe, refuse_gain, 0, 0, 0) == 0

    child = subprocess.run(
        [sys.executable, "-c", f"import ctypes; p = ctypes.CDLL(None).prctl\n"
         f"raise SystemExit(p({set_mdwe}, {refuse_gain}, 0, 0, 0) != 0)"],
    )  # fmt: skip
    if child.returncode:
        pytest.skip("this kernel has no PR_SET_MDWE")
    found = results(before=refuse)
    assert failed(found) == {"code memory"}
    assert "MemoryDenyWriteExecute=no" in found["code memory"].remedy


def test_small_address_space() -> None:
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))

    found = results(before=limit)
    assert "limits" in failed(found)
    assert "ulimit -v" in found["limits"].remedy


def test_other_c_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "confstr", lambda name: "glibc 2.27")
    assert "too old" in doctor.check_glibc().text

    def unknown(name: str) -> str:
        raise ValueError(name)

    monkeypatch.setattr(os, "confstr", unknown)
    result = doctor.check_glibc()
    assert result.status == doctor.FAILED and "musl" in result.remedy


def test_other_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.platform, "machine", lambda: "s390x")
    assert doctor.check_platform().status == doctor.FAILED


def test_help() -> None:
    for arguments in ([], ["--help"]):
        status, output = run(*arguments)
        assert status == 0
        for name in (*command.COMMANDS, *command.MODULES):
            assert f"  {name}  " in output
    assert run("--version") == (0, f"pandalite {doctor.__version__}\n")


def test_commands_of_the_help_exist() -> None:
    for name in command.COMMANDS:
        assert run(name, "--help")[0] == 0
    for name in command.MODULES:
        done = subprocess.run(
            [sys.executable, "-m", name, "--help"], cwd=ROOT, capture_output=True, timeout=60
        )
        assert done.returncode == 0


def test_wrong_usage() -> None:
    assert run("docter")[0] == 2
    assert run("doctor", "--fast")[0] == 2
