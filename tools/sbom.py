"""The bill of materials of a wheel, in CycloneDX's JSON format.

From the tables that drive the fetches: csrc/qemu/sources.toml for what is
compiled, the manifests of firmware and guests for what is taken as it is. Equal
contents give equal bytes: there is no time in it, and the serial number is made
from the rest.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import quote

import build_core
import contents
import licences
import sources
from project import CSRC, LIB, file_sha256, load_toml

NAME = "pandalite.cdx.json"
SPEC = "1.6"

Component = dict[str, Any]


def _hash(sha256: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": sha256}]


def _licence(expression: str) -> list[dict[str, str]]:
    return [{"expression": expression}]


def _property(name: str, value: str) -> dict[str, str]:
    return {"name": f"pandalite:{name}", "value": value}


def _tarball(name: str, sha256: str) -> dict[str, Any]:
    return {
        "type": "source-distribution",
        "url": quote(name),
        "hashes": _hash(sha256),
    }


def compiled() -> list[Component]:
    """What is compiled into the core libraries."""
    table = load_toml(sources.TABLE)
    found = []
    for name, entry in table.items():
        if not isinstance(entry, dict):
            continue
        source = sources.obtain(name)
        component: Component = {
            "type": "application" if name == "qemu" else "library",
            "bom-ref": f"compiled/{name}",
            "name": name,
            "version": source.version,
            "licenses": _licence(source.licence),
            "purl": f"pkg:generic/{name}@{source.version}",
            "externalReferences": [_tarball(t.name, file_sha256(t)) for t in source.tarballs],
            "properties": [
                _property("part", "compiled"),
                *(_property("licence-text", f"{name}/{Path(n).name}") for n in entry["notices"]),
            ],
        }
        if name == "qemu":
            patches = sorted((CSRC / "qemu" / "patches").glob("*.patch"))
            component["pedigree"] = {
                "patches": [{"type": "unofficial"} for _ in patches],
                "notes": ", ".join(f"{p.name} (SHA-256 {file_sha256(p)})" for p in patches),
            }
        found.append(component)
    for name, (licence, file) in licences.COMPILER.items():
        version = licences.compiler_version()
        found.append(
            {
                "type": "library",
                "bom-ref": f"compiled/{name}",
                "name": f"{name}-runtime" if name == "zig" else f"{name}-nonshared",
                "version": version if name == "zig" else f"2.28 as in zig {version}",
                "licenses": _licence(licence),
                "purl": f"pkg:pypi/ziglang@{version}",
                "properties": [
                    _property("part", "compiled"),
                    _property("licence-text", f"{name}/{Path(file).name}"),
                ],
            }
        )
    return found


def firmware(records: list[dict[str, str]]) -> list[Component]:
    """The firmware's files."""
    suite = load_toml(CSRC / "qemu" / "firmware.toml")["suite"]
    return [
        {
            "type": "firmware",
            "bom-ref": f"firmware/{r['file']}",
            "name": r["file"],
            "version": r["version"],
            "hashes": _hash(r["sha256"]),
            "licenses": _licence(r["licence"]),
            "purl": _debian(r["package"], r["version"], "all", suite),
            "properties": [
                _property("part", "firmware"),
                _property("source-package", r["source"]),
                _property("licence-text", f"pandalite/_lib/firmware/LICENSE.{r['package']}"),
            ],
        }
        for r in records
    ]


def guest(manifest: dict[str, Any], place: str) -> list[Component]:
    """The packages a guest is made of; ``place`` is its directory in the wheel."""
    name = manifest["arch"]
    found = []
    for package in manifest["packages"]:
        source = f"{package['source']} {package['source_version']}"
        component: Component = {
            "type": "operating-system" if package["source"] == "linux" else "application",
            "bom-ref": f"guest/{name}/{package['package']}",
            "name": package["package"],
            "version": package["version"],
            "licenses": _licence(licences.of_guest_package(package["source"])),
            "purl": _debian(
                package["package"], package["version"], package["architecture"], manifest["suite"]
            ),
            "externalReferences": [
                {
                    "type": "distribution",
                    "url": quote(package["file"]),
                    "hashes": _hash(package["sha256"]),
                }
            ],
            "properties": [
                _property("part", f"guest {name}"),
                _property("source-package", source),
                _property("licence-text", f"{place}/{package['copyright']}"),
            ],
        }
        if package.get("built_using"):
            component["properties"].append(_property("built-using", str(package["built_using"])))
        found.append(component)
    return found


def _debian(package: str, version: str, architecture: str, suite: str) -> str:
    """A package URL: names a package of Debian, wherever it is fetched from."""
    return (
        f"pkg:deb/debian/{quote(package)}@{quote(version, safe='')}"
        f"?arch={architecture}&distro={suite}"
    )


def document(name: str, licence: str, components: list[Component]) -> dict[str, Any]:
    """The whole bill of materials of a distribution."""
    version = build_core.version()
    components = sorted(components, key=lambda c: str(c["bom-ref"]))
    main = {
        "type": "library",
        "bom-ref": name,
        "name": name,
        "version": version,
        "licenses": _licence(licence),
        "purl": f"pkg:pypi/{name}@{version}",
    }
    result = {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPEC}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        "version": 1,
        "metadata": {"component": main},
        "components": components,
        "dependencies": [
            {"ref": name, "dependsOn": [c["bom-ref"] for c in components]},
            *({"ref": c["bom-ref"]} for c in components),
        ],
    }
    digest = hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()
    result["serialNumber"] = f"urn:uuid:{uuid.UUID(digest[:32], version=5)}"
    return result


def of_pandalite() -> dict[str, Any]:
    """The bill of materials of the wheel that is made from what is built here."""
    folder = LIB / "guests" / contents.GUEST
    place = f"pandalite/_lib/guests/{contents.GUEST}"
    return document(
        "pandalite",
        licences.declared(),
        [
            *compiled(),
            *firmware(contents.firmware_manifest()),
            *guest(contents.guest_manifest(folder), place),
        ],
    )


def write(path: Path, bill: dict[str, Any]) -> None:
    """Write a bill of materials."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(bill, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def licence_texts(bill: dict[str, Any]) -> list[str]:
    """The licence texts that a bill of materials names, by their place in the wheel.

    Those of what is compiled in are among the License-Files: see
    :func:`licence_file`.
    """
    return [
        p["value"]
        for component in bill["components"]
        for p in component["properties"]
        if p["name"] == "pandalite:licence-text"
    ]


def licence_file(text: str) -> str:
    """The License-File entry of a text that a component names, or its own path."""
    return text if re.match(r"pandalite(_guests)?/", text) else f"licenses/{text}"
