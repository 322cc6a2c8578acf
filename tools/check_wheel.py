"""Check wheels before anybody gets them.

    python tools/check_wheel.py [--report FILE] [WHEEL ...]

Without names, what is in dist/. Prints a report, and each problem; exit status 1
if there is one. What the libraries must be is in tools/wheel_elf.py.
"""

from __future__ import annotations

import argparse
import base64
import csv
import hashlib
import importlib.util
import io
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from email.message import Message
from email.parser import Parser
from functools import cached_property
from pathlib import Path
from typing import Any

import build_core
import contents
import licences
import sbom
import wheel_elf
from project import ROOT, cache_dir

#: Bytes a wheel may have, and what it unpacks to.
PACKED = 95_000_000
INSTALLED = 260_000_000

DEPENDENCIES = {"requests", "tqdm"}


class Wheel:
    """A wheel as a file: what is in it, read once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.archive = zipfile.ZipFile(path)
        self.infos = [i for i in self.archive.infolist() if not i.is_dir()]
        self.names = [info.filename for info in self.infos]
        name, self.version, self.tag = path.name[: -len(".whl")].split("-", 2)
        self.distribution = name.replace("_", "-")
        self.info = f"{name}-{self.version}.dist-info"

    def read(self, name: str) -> bytes:
        """The bytes of a member."""
        return self.archive.read(name)

    def message(self, name: str) -> Message:
        """WHEEL or METADATA, parsed."""
        return Parser().parsestr(self.read(f"{self.info}/{name}").decode("utf-8"))

    @property
    def has_code(self) -> bool:
        """Whether it has core libraries: the companion with the guests has none."""
        return self.distribution == "pandalite"

    @property
    def machine(self) -> str:
        """The host architecture of its tag."""
        found = re.search(r"_(x86_64|aarch64)$", self.tag)
        return found.group(1) if found else "any"

    @cached_property
    def libraries(self) -> list[wheel_elf.Library]:
        """The core libraries in it."""
        glibc = tuple(map(int, contents.GLIBC.split(".")))
        exported = frozenset(build_core.exported())
        return [
            wheel_elf.Library(
                Path(name).name, self.read(name), self.machine, glibc, exported=exported
            )
            for name in self.names
            if re.fullmatch(r"pandalite/_lib/[^/]+\.so", name)
        ]

    @cached_property
    def bill(self) -> dict[str, Any]:
        """The bill of materials; empty if there is none."""
        for name in self.names:
            if name.startswith(f"{self.info}/sboms/") and name.endswith(".cdx.json"):
                found: dict[str, Any] = json.loads(self.read(name))
                return found
        return {}


def gate_tag(wheel: Wheel) -> Iterator[str]:
    """The tag in the name, the tag inside, and what is in it agree."""
    inside = wheel.message("WHEEL")
    if inside.get_all("Tag") != [wheel.tag]:
        yield f"its WHEEL has the tags {inside.get_all('Tag')}, its name {wheel.tag}"
    if wheel.has_code:
        if wheel.machine not in wheel_elf.MACHINES or wheel.tag != contents.tag(wheel.machine):
            yield f"its tag is {wheel.tag}, not {contents.tag('<machine>')}"
        if inside["Root-Is-Purelib"] != "false":
            yield "it says that it has no libraries (Root-Is-Purelib)"
    elif wheel.tag != "py3-none-any":
        yield f"its tag is {wheel.tag}, and it has no code"


def gate_size(wheel: Wheel) -> Iterator[str]:
    """Small enough to be published and installed."""
    packed, installed = wheel.path.stat().st_size, sum(i.file_size for i in wheel.infos)
    if packed > PACKED:
        yield f"it has {packed / 1e6:.1f} MB, more than {PACKED / 1e6:.0f}"
    if installed > INSTALLED:
        yield f"it unpacks to {installed / 1e6:.1f} MB, more than {INSTALLED / 1e6:.0f}"


def gate_record(wheel: Wheel) -> Iterator[str]:
    """RECORD lists every file once, with its hash and size."""
    own = f"{wheel.info}/RECORD"
    for name in sorted({n for n in wheel.names if wheel.names.count(n) > 1}):
        yield f"{name} is in it twice"
    listed: dict[str, tuple[str, str]] = {}
    for name, digest, size in csv.reader(io.StringIO(wheel.read(own).decode("utf-8"))):
        if name in listed:
            yield f"RECORD lists {name} twice"
        listed[name] = (digest, size)
    for name in sorted(set(listed) - set(wheel.names)):
        yield f"RECORD lists {name}, which is not there"
    for name in sorted(set(wheel.names)):
        if name not in listed:
            yield f"RECORD does not list {name}"
        elif name != own:
            data = wheel.read(name)
            total = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            if listed[name] != (f"sha256={total}", str(len(data))):
                yield f"RECORD has another hash or size for {name}"


def gate_archive(wheel: Wheel) -> Iterator[str]:
    """Nothing in the archive depends on when, where and by whom it was made."""
    times = {info.date_time for info in wheel.infos}
    if len(times) > 1:
        yield f"its files have different times: {sorted(times)[:3]}"
    for info in wheel.infos:
        mode = info.external_attr >> 16
        if mode & 0o7777 not in (0o644, 0o755, 0o664):
            yield f"{info.filename} has the mode {mode & 0o7777:o}"
        name = info.filename
        if name.startswith("/") or ".." in name.split("/") or "__pycache__" in name:
            yield f"{name} does not belong into a wheel"


def gate_files(wheel: Wheel) -> Iterator[str]:
    """The built files are those that the manifests list, with the bytes they list."""
    prefix = "pandalite/_lib/" if wheel.has_code else "pandalite_guests/"
    found = {name[len(prefix) :] for name in wheel.names if name.startswith(prefix)}
    expected: dict[str, str] = {}  # place -> SHA-256, "" if not known
    if wheel.has_code:
        expected.update(dict.fromkeys(contents.libraries(), ""))
        records = _manifest(wheel, f"{prefix}firmware/manifest.json") or []
        if not records:
            yield "it has no firmware"
        for name in contents.firmware_files(records):
            expected[f"firmware/{name}"] = ""
        expected.update({f"firmware/{r['file']}": r["sha256"] for r in records})
        guests = {contents.GUEST}
    else:
        expected["__init__.py"] = ""
        guests = {n.split("/")[1] for n in found if n.startswith("guests/")}
    for guest in sorted(guests):
        manifest = _manifest(wheel, f"{prefix}guests/{guest}/manifest.json")
        if manifest is None:
            yield f"it has no guest {guest}"
            continue
        expected[f"guests/{guest}/manifest.json"] = ""
        for name, facts in manifest["files"].items():
            expected[f"guests/{guest}/{name}"] = facts["sha256"]
    for name in sorted(set(expected) - found):
        yield f"{prefix}{name} is missing"
    for name in sorted(found - set(expected)):
        yield f"{prefix}{name} is listed nowhere"
    for name in sorted(found & set(expected)):
        wanted = expected[name]
        if wanted and hashlib.sha256(wheel.read(prefix + name)).hexdigest() != wanted:
            yield f"{prefix}{name} is not what its manifest says"


def _manifest(wheel: Wheel, name: str) -> Any:
    return json.loads(wheel.read(name)) if name in wheel.names else None


def gate_libraries(wheel: Wheel) -> Iterator[str]:
    """All gates of tools/wheel_elf.py, for each library."""
    for library in wheel.libraries:
        for gate in wheel_elf.GATES.values():
            for problem in gate(library):
                yield f"{library.name} {problem} [{gate.__name__}]"


def gate_paths(wheel: Wheel) -> Iterator[str]:
    """No file has a path of this checkout or its build cache in it."""
    places = {str(ROOT), str(cache_dir()), str(cache_dir().resolve())}
    for name in wheel.names:
        data = wheel.read(name)
        for place in sorted(places):
            if place.encode() in data:
                yield f"{name} has the path {place} in it"


def gate_metadata(wheel: Wheel) -> Iterator[str]:
    """The dependencies are the two there may be; Python is old enough."""
    metadata = wheel.message("METADATA")
    if metadata["Version"] != build_core.version():
        yield f"it is version {metadata['Version']}, the checkout {build_core.version()}"
    if metadata["Requires-Python"] != ">=3.9":
        yield f"it requires Python {metadata['Requires-Python']}"
    needs = metadata.get_all("Requires-Dist") or []
    always = {re.split(r"[\s;<>=!~\[]", n)[0] for n in needs if "extra ==" not in n}
    if always != (DEPENDENCIES if wheel.has_code else set()):
        yield f"it requires {', '.join(sorted(always)) or 'nothing'}"


def gate_licences(wheel: Wheel) -> Iterator[str]:
    """Expression, bill of materials and texts: complete, and of one mind."""
    metadata = wheel.message("METADATA")
    files = metadata.get_all("License-File") or []
    for file in files:
        if f"{wheel.info}/licenses/{file}" not in wheel.names:
            yield f"the License-File {file} is missing"
    if not wheel.bill:
        yield "it has no bill of materials (CycloneDX) in dist-info/sboms"
        return
    main = wheel.bill["metadata"]["component"]
    if (main["name"], main["version"]) != (wheel.distribution, wheel.version):
        yield f"its bill of materials is that of {main['name']} {main['version']}"
    wanted = {"GPL-2.0-only"} if wheel.has_code else set()
    for component in wheel.bill["components"]:
        for entry in component["licenses"]:
            wanted.update(licences.terms(entry["expression"]))
        yield from _texts(wheel, component, files)
    declared = set(licences.terms(metadata["License-Expression"] or ""))
    if declared != wanted:
        odd = sorted(declared ^ wanted)
        yield f"License-Expression and bill of materials differ in {', '.join(odd)}"
    yield from _parts(wheel)
    yield from _common(wheel, files)


def _texts(wheel: Wheel, component: dict[str, Any], files: list[str]) -> Iterator[str]:
    """The licence texts of a component are in the wheel."""
    texts = [sbom.licence_file(text) for text in sbom.licence_texts({"components": [component]})]
    if not texts:
        yield f"{component['name']} has no licence text"
    for text in texts:
        if text not in files and text not in wheel.names:
            yield f"the licence text {text} of {component['name']} is missing"


def _parts(wheel: Wheel) -> Iterator[str]:
    """Every source, firmware file and package of a guest is in the bill."""
    known = {c["bom-ref"] for c in wheel.bill["components"]}
    wanted = {f"compiled/{name}" for name in licences.compiled()} if wheel.has_code else set()
    for name in wheel.names:
        if name.endswith("/_lib/firmware/manifest.json"):
            wanted.update(f"firmware/{r['file']}" for r in _manifest(wheel, name))
        elif found := re.search(r"/guests/([^/]+)/manifest\.json$", name):
            packages = _manifest(wheel, name)["packages"]
            wanted.update(f"guest/{found.group(1)}/{p['package']}" for p in packages)
    for name in sorted(wanted - known):
        yield f"the bill of materials lacks {name}"
    for name in sorted(known - wanted):
        yield f"the bill of materials has {name}, which is not in the wheel"


def _common(wheel: Wheel, files: list[str]) -> Iterator[str]:
    """The usual licences that Debian's copyright files only name are there."""
    named: dict[str, str] = {}
    for name in wheel.names:
        if re.search(r"/firmware/LICENSE\.|/copyright/[^/]+$", name):
            text = wheel.read(name).decode("utf-8", "replace")
            named.update(dict.fromkeys(licences.common_names(text), name))
    for licence, place in sorted(named.items()):
        if f"licenses/common/{licence}" not in files:
            yield f"{place} names the licence {licence}, whose text is missing"


def gate_auditwheel(wheel: Wheel) -> Iterator[str]:
    """auditwheel, which knows the policies, agrees with the tag."""
    if not wheel.has_code:
        return
    if importlib.util.find_spec("auditwheel") is None:
        yield "auditwheel is not installed: pip install -r tools/requirements-dev.txt"
        return
    done = subprocess.run(
        [sys.executable, "-m", "auditwheel", "show", str(wheel.path)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    said = " ".join(done.stdout.split())
    wanted = contents.platform_tag(wheel.machine)
    if done.returncode or f'consistent with the following platform tag: "{wanted}"' not in said:
        yield f"auditwheel does not say {wanted}: {said[:300] or done.stderr[-300:]}"


GATES: dict[str, Callable[[Wheel], Iterator[str]]] = {
    gate.__name__[len("gate_") :]: gate
    for gate in (
        *(gate_tag, gate_size, gate_record, gate_archive, gate_files, gate_libraries),
        *(gate_paths, gate_metadata, gate_licences, gate_auditwheel),
    )
}


def problems(wheel: Wheel, gates: Iterable[str] = GATES) -> dict[str, list[str]]:
    """What each gate finds; those that find nothing are in it too."""
    found: dict[str, list[str]] = {}
    for name in gates:
        try:
            found[name] = list(GATES[name](wheel))
        except Exception as error:  # a damaged file must not hide what else is wrong
            found[name] = [f"the check itself failed: {type(error).__name__}: {error}"]
    return found


def _line(library: wheel_elf.Library) -> str:
    """What a library is, in a line of the report."""
    try:
        newest = ".".join(map(str, library.newest_glibc))
        needed = " ".join(sorted(name.split(".so")[0] for name in library.needed))
        count = len(library.symbols(defined=True))
    except Exception as error:  # the gates say so too
        return f"{library.name:24} cannot be read: {error}"
    return (
        f"{library.name:24} {len(library.data) / 1e6:5.1f} MB  GLIBC_{newest}  "
        f"{count} exports  needs {needed}"
    )


def report(wheel: Wheel, found: dict[str, list[str]]) -> str:
    """The report on a wheel as text."""
    installed = sum(info.file_size for info in wheel.infos)
    packed = wheel.path.stat().st_size
    lines = [
        f"{wheel.path.name}",
        f"  SHA-256 {hashlib.sha256(wheel.path.read_bytes()).hexdigest()}",
        f"  {packed / 1e6:.1f} MB (at most {PACKED / 1e6:.0f}), unpacked {installed / 1e6:.1f} MB "
        f"(at most {INSTALLED / 1e6:.0f}), {len(wheel.names)} files, "
        f"{len(wheel.bill.get('components', []))} components",
    ]
    lines += [f"  {_line(library)}" for library in wheel.libraries]
    for name, lines_of_gate in found.items():
        lines.append(f"  {name:12} {'ok' if not lines_of_gate else 'FAILED'}")
        lines += [f"    {line}" for line in lines_of_gate]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("wheels", nargs="*", type=Path, metavar="WHEEL")
    parser.add_argument("--report", type=Path, help="write the report to a file too")
    given = parser.parse_args(arguments)
    wheels = given.wheels or sorted((ROOT / "dist").glob("pandalite*.whl"))
    if not wheels:
        print("error: there is no wheel in dist: `make wheel` makes it", file=sys.stderr)
        return 1
    texts, bad = [], False
    for path in wheels:
        wheel = Wheel(path)
        found = problems(wheel)
        bad = bad or any(found.values())
        texts.append(report(wheel, found))
    print("\n".join(texts))
    if given.report:
        given.report.write_text("\n".join(texts) + "\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
