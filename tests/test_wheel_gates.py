"""Each gate of tools/check_wheel.py lets a good wheel pass and finds what is wrong.

The wheels here are small: stub libraries with the right functions, made by the
host's compiler, and files of a few bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ctools import ROOT

sys.path.insert(0, str(ROOT / "tools"))

import build_core
import check_wheel
import contents
import licences
import wheel_elf

VERSION = build_core.version()
INFO = f"pandalite-{VERSION}.dist-info"
TAG = contents.tag("x86_64")
EXPORTED = frozenset(build_core.exported())

GOOD = ["-O2", "-fPIC", "-shared", "-nostartfiles"]
GOOD += ["-Wl,-z,relro", "-Wl,-z,now", "-Wl,-z,noexecstack"]


def compile_stub(
    folder: Path,
    *options: str,
    extra: str = "",
    name: str = "libpanda-x86_64.so",
    exported: frozenset[str] = EXPORTED,
    strip: bool = True,
) -> bytes:
    """A library with the public functions, which do nothing but need libc."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "stub.c"
    functions = "".join(f"void {function}(void) {{ getpid(); }}\n" for function in exported)
    source.write_text(f"extern int getpid(void);\n{functions}{extra}\n")
    out = folder / name
    command = ["gcc", *GOOD, f"-Wl,-soname,{name}", str(source), "-o", str(out), *options]
    command += ["-s"] if strip else ["-g"]
    subprocess.run(command, check=True, timeout=120, cwd=folder, capture_output=True)
    return out.read_bytes()


def library(data: bytes, name: str = "libpanda-x86_64.so") -> wheel_elf.Library:
    return wheel_elf.Library(name, data, "x86_64", (2, 28), exported=EXPORTED)


def failing(data: bytes) -> set[str]:
    """The gates that a library does not pass."""
    it = library(data)
    return {name for name, gate in wheel_elf.GATES.items() if list(gate(it))}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A stub that passes all gates."""
    return compile_stub(tmp_path_factory.mktemp("good"))


def test_good_library(good: bytes) -> None:
    assert failing(good) == set()


def test_large_pages(good: bytes) -> None:
    # Made for pages of 4 KB, which do on x86_64 only.
    it = wheel_elf.Library("libpanda-x86_64.so", good, "aarch64", (2, 28), exported=EXPORTED)
    assert list(wheel_elf.pages(library(good))) == []
    assert list(wheel_elf.pages(it)) == ["cannot be loaded by a kernel with pages of 64 KB"]


def test_other_machine(good: bytes) -> None:
    aarch64 = 183
    assert failing(good[:18] + aarch64.to_bytes(2, "little") + good[20:]) == {"machine"}


def test_other_soname(good: bytes) -> None:
    found = list(wheel_elf.needed(library(good, "libpanda-arm.so")))
    assert found == ["calls itself ['libpanda-x86_64.so']"]


def foreign_library(folder: Path, name: str, symbol: str) -> None:
    """A library to link with, called `name`, that has one function."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "foreign.c"
    source.write_text(f"void {symbol}(void) {{}}\n")
    command = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{name}", str(source)]
    subprocess.run([*command, "-o", str(folder / name)], check=True, timeout=120)


def test_glib_as_a_shared_library(tmp_path: Path) -> None:
    # auditwheel's policy would let this pass.
    foreign_library(tmp_path, "libglib-2.0.so.0", "g_malloc")
    use = "extern void g_malloc(void); void panda_use(void) { g_malloc(); }"
    data = compile_stub(tmp_path, str(tmp_path / "libglib-2.0.so.0"), extra=use)
    assert failing(data) == {"needed", "hidden", "exports"}
    assert "needs libglib-2.0.so.0" in list(wheel_elf.needed(library(data)))


def test_visible_glib(tmp_path: Path) -> None:
    data = compile_stub(tmp_path, extra="void g_malloc(void) {} void panda_more(void) {}")
    assert failing(data) == {"exports", "hidden"}
    (line,) = wheel_elf.hidden(library(data))
    assert "g_malloc" in line and "panda" not in line


def test_missing_function(tmp_path: Path) -> None:
    missing = sorted(EXPORTED)[0]
    data = compile_stub(tmp_path, exported=EXPORTED - {missing})
    assert failing(data) == {"exports"}
    assert list(wheel_elf.exports(library(data))) == [f"does not export {missing}"]


def test_new_glibc(tmp_path: Path) -> None:
    # Any version will do: the gate reads names. This one is of a made-up libc.
    script = tmp_path / "versions"
    script.write_text("GLIBC_2.34 { global: pthread_create; };\n")
    source = tmp_path / "libc.c"
    source.write_text("void pthread_create(void) {}\n")
    libc = tmp_path / "libpthread.so.0"
    command = ["gcc", "-shared", "-fPIC", "-nostdlib", "-Wl,-soname,libpthread.so.0"]
    command += [f"-Wl,--version-script={script}", str(source), "-o", str(libc)]
    subprocess.run(command, check=True, timeout=120)
    use = "extern void pthread_create(void); static void use(void) { pthread_create(); }"
    used = f'{use} __attribute__((section(".init_array"))) void *used = use;'
    hide = tmp_path / "hide"
    hide.write_text("{ global: " + "".join(f"{n};" for n in EXPORTED) + " local: *; };")
    data = compile_stub(tmp_path, str(libc), f"-Wl,--version-script={hide}", extra=used)
    assert failing(data) == {"glibc"}
    assert list(wheel_elf.glibc(library(data))) == ["needs GLIBC_2.34, newer than 2.28"]


def test_text_relocations(tmp_path: Path) -> None:
    text = 'asm(".text\\n.quad getpid\\n");'
    data = compile_stub(tmp_path, "-Wl,-z,notext", extra=text)
    assert failing(data) == {"textrel"}


def test_executable_stack(tmp_path: Path) -> None:
    assert failing(compile_stub(tmp_path, "-Wl,-z,execstack")) == {"stack"}


def test_writable_code(good: bytes) -> None:
    offset, size, count = (library(good).elf[f"e_ph{n}"] for n in ("off", "entsize", "num"))
    changed = bytearray(good)
    for start in range(offset, offset + size * count, size):
        if changed[start : start + 4] == b"\1\0\0\0":  # PT_LOAD
            changed[start + 4] = 7
    assert failing(bytes(changed)) == {"stack"}


def test_no_relro(tmp_path: Path) -> None:
    assert failing(compile_stub(tmp_path, "-Wl,-z,norelro")) == {"relro"}


def test_lazy_binding(tmp_path: Path) -> None:
    assert failing(compile_stub(tmp_path, "-Wl,-z,lazy")) == {"bind_now"}


@pytest.mark.parametrize("tags", ["enable", "disable"])
def test_search_path(tmp_path: Path, tags: str) -> None:
    data = compile_stub(tmp_path, "-Wl,-rpath,$ORIGIN", f"-Wl,--{tags}-new-dtags")
    assert failing(data) == {"rpath"}


def test_not_stripped(tmp_path: Path) -> None:
    (line, *more) = wheel_elf.stripped(library(compile_stub(tmp_path, strip=False)))
    assert "is not stripped" in line and more


@pytest.mark.parametrize(
    "path",
    ["/home/me/src/a.c", "/root/.cache/b.c", "/tmp/tmpx1/c.c", "/work/repo/d.c", "/usr/src/e.c"],
)
def test_build_path(good: bytes, path: str) -> None:
    assert failing(good + b"\0" + path.encode() + b"\0") == {"paths"}


@pytest.mark.parametrize("path", ["/tmp/perf-%d.map", "/dev/urandom", "include/home/x.c"])
def test_path_that_is_no_build_path(good: bytes, path: str) -> None:
    assert failing(good + b"\0" + path.encode() + b"\0") == set()


# The wheel around the libraries


class Parts:
    """The files of a small wheel that passes, to be changed by tests."""

    def __init__(self, libraries: dict[str, bytes]) -> None:
        self.name = f"pandalite-{VERSION}-{TAG}.whl"
        self.files: dict[str, bytes] = {
            "pandalite/__init__.py": b"",
            f"{INFO}/WHEEL": f"Root-Is-Purelib: false\nTag: {TAG}\n".encode(),
            f"{INFO}/licenses/LICENSE": b"GPL",
        }
        for name, data in libraries.items():
            self.files[f"pandalite/_lib/{name}"] = data
        self.components = [
            self.component(f"compiled/{name}", licence, f"{name}/TEXT")
            for name, licence in licences.compiled().items()
        ]
        for name in licences.compiled():
            self.files[f"{INFO}/licenses/licenses/{name}/TEXT"] = b"text"
        self._firmware()
        self._guest()
        self.record: Callable[[str], str] = lambda text: text
        self.times: dict[str, tuple[int, int, int, int, int, int]] = {}
        self.expression = ""

    @staticmethod
    def component(ref: str, licence: str, text: str) -> dict[str, Any]:
        return {
            "bom-ref": ref,
            "name": ref.split("/")[-1],
            "licenses": [{"expression": licence}],
            "properties": [{"name": "pandalite:licence-text", "value": text}],
        }

    def _firmware(self) -> None:
        place = "pandalite/_lib/firmware"
        record = {"file": "bios.bin", "package": "bios", "sha256": sha256(b"bios")}
        self.files[f"{place}/bios.bin"] = b"bios"
        self.files[f"{place}/LICENSE.bios"] = b"see /usr/share/common-licenses/GPL-3."
        self.files[f"{place}/manifest.json"] = json.dumps([record]).encode()
        self.files[f"{INFO}/licenses/licenses/common/GPL-3"] = b"text"
        self.components.append(
            self.component("firmware/bios.bin", "GPL-3.0-or-later", f"{place}/LICENSE.bios")
        )

    def _guest(self) -> None:
        place = f"pandalite/_lib/guests/{contents.GUEST}"
        files = {"kernel": b"kernel", "initrd.gz": b"initrd", "copyright/linux.txt": b"GPL"}
        facts = {n: {"sha256": sha256(d), "size": len(d)} for n, d in files.items()}
        manifest = {"files": facts, "packages": [{"package": "linux", "source": "linux"}]}
        self.files.update({f"{place}/{n}": d for n, d in files.items()})
        self.files[f"{place}/manifest.json"] = json.dumps(manifest).encode()
        ref = f"guest/{contents.GUEST}/linux"
        text = f"{place}/copyright/linux.txt"
        self.components.append(self.component(ref, "GPL-2.0-only", text))

    def metadata(self) -> bytes:
        terms = {"GPL-2.0-only"}
        for component in self.components:
            terms.update(licences.terms(component["licenses"][0]["expression"]))
        prefix = f"{INFO}/licenses/"
        texts = sorted(n[len(prefix) :] for n in self.files if n.startswith(prefix))
        lines = [
            f"Version: {VERSION}",
            f"License-Expression: {self.expression or ' AND '.join(sorted(terms))}",
            "Requires-Python: >=3.9",
            "Requires-Dist: requests",
            "Requires-Dist: tqdm",
            'Requires-Dist: numpy ; extra == "numpy"',
            *(f"License-File: {name}" for name in texts),
        ]
        return "\n".join(lines).encode() + b"\n"

    def bill(self) -> bytes:
        main = {"name": "pandalite", "version": VERSION}
        return json.dumps({"metadata": {"component": main}, "components": self.components}).encode()

    def write(self, folder: Path) -> check_wheel.Wheel:
        files = {
            f"{INFO}/METADATA": self.metadata(),
            f"{INFO}/sboms/pandalite.cdx.json": self.bill(),
            **self.files,
        }
        files = {name: data for name, data in files.items() if data is not None}
        lines = []
        for name, data in files.items():
            total = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            lines.append(f"{name},sha256={total},{len(data)}")
        lines.append(f"{INFO}/RECORD,,")
        files[f"{INFO}/RECORD"] = self.record("\n".join(lines) + "\n").encode()
        path = folder / self.name
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                info = zipfile.ZipInfo(name, self.times.get(name, (2020, 2, 2, 0, 0, 0)))
                info.external_attr = 0o100644 << 16
                archive.writestr(info, data)
        return check_wheel.Wheel(path)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A good library for each architecture."""
    folder = tmp_path_factory.mktemp("stubs")
    return {name: compile_stub(folder, name=name) for name in contents.libraries()}


@pytest.fixture
def parts(stubs: dict[str, bytes]) -> Iterator[Parts]:
    """A good wheel's parts."""
    yield Parts(stubs)


def found(parts: Parts, folder: Path) -> dict[str, list[str]]:
    """What the gates find, auditwheel's apart: its answer depends on the stubs' libc."""
    gates = [name for name in check_wheel.GATES if name != "auditwheel"]
    every = check_wheel.problems(parts.write(folder), gates)
    return {name: lines for name, lines in every.items() if lines}


def test_good_wheel(parts: Parts, tmp_path: Path) -> None:
    assert found(parts, tmp_path) == {}


def test_library_in_the_wheel(parts: Parts, tmp_path: Path) -> None:
    name = "libpanda-arm.so"
    parts.files[f"pandalite/_lib/{name}"] = compile_stub(tmp_path, "-Wl,-z,execstack", name=name)
    assert found(parts, tmp_path) == {
        "libraries": ["libpanda-arm.so wants an executable stack [stack]"]
    }


def test_library_that_is_none(parts: Parts, tmp_path: Path) -> None:
    parts.files["pandalite/_lib/libpanda-arm.so"] = b"truncated"
    (line,) = found(parts, tmp_path)["libraries"]
    assert "the check itself failed" in line


@pytest.mark.parametrize(
    "tag",
    [
        "py3-none-linux_x86_64",
        "py3-none-any",
        "cp311-cp311-manylinux_2_28_x86_64",
        "py3-none-manylinux_2_17_x86_64",
    ],
)
def test_wrong_tag(parts: Parts, tmp_path: Path, tag: str) -> None:
    parts.name = f"pandalite-{VERSION}-{tag}.whl"
    parts.files[f"{INFO}/WHEEL"] = f"Root-Is-Purelib: false\nTag: {tag}\n".encode()
    assert any("its tag is" in line for line in found(parts, tmp_path)["tag"])


def test_tag_inside(parts: Parts, tmp_path: Path) -> None:
    parts.files[f"{INFO}/WHEEL"] = b"Root-Is-Purelib: true\nTag: py3-none-any\n"
    assert len(found(parts, tmp_path)["tag"]) == 2


def test_size(parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_wheel, "PACKED", 1000)
    monkeypatch.setattr(check_wheel, "INSTALLED", 1000)
    assert len(found(parts, tmp_path)["size"]) == 2


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda t: "".join(t.splitlines(True)[1:]), "does not list"),
        (lambda t: t.replace("sha256=", "sha256=A", 1), "another hash"),
        (lambda t: t + "pandalite/gone.py,sha256=x,1\n", "is not there"),
        (lambda t: t + t.splitlines(True)[0], "twice"),
    ],
)
def test_record(parts: Parts, tmp_path: Path, change: Callable[[str], str], word: str) -> None:
    parts.record = change
    problems = found(parts, tmp_path)
    assert set(problems) == {"record"}
    assert any(word in line for line in problems["record"])


def test_times(parts: Parts, tmp_path: Path) -> None:
    parts.times["pandalite/__init__.py"] = (2024, 1, 2, 3, 4, 6)
    assert set(found(parts, tmp_path)) == {"archive"}


def test_strange_names(parts: Parts, tmp_path: Path) -> None:
    parts.files["pandalite/__pycache__/x.pyc"] = b""
    assert set(found(parts, tmp_path)) == {"archive"}


@pytest.mark.parametrize(
    ("name", "data", "word"),
    [
        ("libpanda-arm.so", None, "is missing"),
        ("libpanda-m68k.so.part", b"", "is listed nowhere"),
        ("firmware/bios.bin", b"other", "is not what its manifest says"),
        (f"guests/{contents.GUEST}/kernel", b"other", "is not what its manifest says"),
        (f"guests/{contents.GUEST}/manifest.json", None, "it has no guest"),
        ("guests/arm/kernel", b"", "is listed nowhere"),
    ],
)
def test_files(parts: Parts, tmp_path: Path, name: str, data: bytes | None, word: str) -> None:
    parts.files[f"pandalite/_lib/{name}"] = data  # type: ignore[assignment]
    assert any(word in line for line in found(parts, tmp_path)["files"])


def test_path_of_the_checkout(parts: Parts, tmp_path: Path) -> None:
    parts.files["pandalite/x.json"] = json.dumps({"from": str(ROOT / "csrc")}).encode()
    assert found(parts, tmp_path) == {"paths": [f"pandalite/x.json has the path {ROOT} in it"]}


def test_dependencies(parts: Parts, tmp_path: Path) -> None:
    text = parts.metadata().replace(b"Requires-Dist: tqdm", b"Requires-Dist: cffi>=1")
    parts.files[f"{INFO}/METADATA"] = text.replace(b">=3.9", b">=3.12")
    assert found(parts, tmp_path) == {
        "metadata": ["it requires Python >=3.12", "it requires cffi, requests"]
    }


def test_other_expression(parts: Parts, tmp_path: Path) -> None:
    parts.expression = "GPL-2.0-only AND MIT"
    (line,) = found(parts, tmp_path)["licences"]
    assert "Zlib" in line and "MIT" not in line


def test_no_bill_of_materials(parts: Parts, tmp_path: Path) -> None:
    parts.files[f"{INFO}/sboms/pandalite.cdx.json"] = None  # type: ignore[assignment]
    assert found(parts, tmp_path) == {
        "licences": ["it has no bill of materials (CycloneDX) in dist-info/sboms"]
    }


def test_component_is_missing(parts: Parts, tmp_path: Path) -> None:
    parts.components = [c for c in parts.components if c["bom-ref"] != "compiled/glib"]
    lines = found(parts, tmp_path)["licences"]
    assert "the bill of materials lacks compiled/glib" in lines


def test_text_of_a_component_is_missing(parts: Parts, tmp_path: Path) -> None:
    del parts.files[f"{INFO}/licenses/licenses/qemu/TEXT"]
    assert found(parts, tmp_path) == {
        "licences": ["the licence text licenses/qemu/TEXT of qemu is missing"]
    }


def test_text_of_a_usual_licence_is_missing(parts: Parts, tmp_path: Path) -> None:
    del parts.files[f"{INFO}/licenses/licenses/common/GPL-3"]
    (line,) = found(parts, tmp_path)["licences"]
    assert "names the licence GPL-3, whose text is missing" in line


def test_auditwheel_disagrees(parts: Parts, tmp_path: Path) -> None:
    # The stubs need less than what the tag says.
    (line,) = check_wheel.problems(parts.write(tmp_path), ["auditwheel"])["auditwheel"]
    assert "auditwheel does not say manylinux_2_28_x86_64" in line


def test_command(parts: Parts, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts.files["pandalite/_lib/libpanda-arm.so"] = b""
    wheel = parts.write(tmp_path)
    report = tmp_path / "report"
    assert check_wheel.main([str(wheel.path), "--report", str(report)]) == 1
    assert "FAILED" in capsys.readouterr().out
    assert "libraries    FAILED" in report.read_text()
