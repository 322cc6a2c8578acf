"""Files of Debian binary packages, by path, without installing them."""

from __future__ import annotations

import hashlib
import posixpath
import re
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any


class PackageError(Exception):
    """A package is damaged, or lacks a file it was expected to have."""


@dataclass(frozen=True)
class File:
    """A regular file or symbolic link of a package.

    ``link`` is the target of a symbolic link as written, else None.
    """

    path: str
    mode: int
    link: str | None


#: Top-level directories that are links into /usr in today's Debian.
_MERGED = re.compile(r"^(?:bin|sbin|lib\w*)(?=/|$)")


def merged(path: str) -> str:
    """A package's path as it is once /bin, /sbin and /lib are links into /usr."""
    path = posixpath.normpath("/" + path).lstrip("/")
    return "usr/" + path if _MERGED.match(path) else path


class Package:
    """An opened .deb. Paths have no leading slash and are merged into /usr."""

    def __init__(self, deb: Path, scratch: Path | None = None) -> None:
        """Open a package; unpacked data is kept in ``scratch`` until closed."""
        self.deb = deb
        self._store: IO[bytes] = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115
        done = subprocess.run(
            ["dpkg-deb", "--fsys-tarfile", str(deb)],
            stdout=self._store,
            stderr=subprocess.PIPE,
            check=False,
        )
        if done.returncode:
            self._store.close()
            raise PackageError(f"cannot read {deb}: {done.stderr.decode(errors='replace').strip()}")
        self._store.seek(0)
        self._tar = tarfile.open(fileobj=self._store, mode="r:")  # noqa: SIM115
        self._members = {
            merged(m.name): m for m in self._tar if m.isreg() or m.issym() or m.islnk()
        }
        fields = subprocess.run(
            ["dpkg-deb", "--field", str(deb), "Package", "Version", "Architecture", "Source"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        self.fields = dict(line.split(": ", 1) for line in fields.splitlines() if ": " in line)

    def __enter__(self) -> Package:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._tar.close()
        self._store.close()

    @property
    def name(self) -> str:
        """The package's name."""
        return self.fields["Package"]

    @property
    def notice_of(self) -> str:
        """Name of the package whose copyright file is this one's too; mostly its own."""
        place = f"usr/share/doc/{self.name}"
        member = self._members.get(place)
        return posixpath.basename(member.linkname) if member is not None else self.name

    def paths(self, pattern: str = "") -> list[str]:
        """Paths of files and links that match a regular expression, sorted."""
        wanted = re.compile(pattern)
        return sorted(p for p in self._members if wanted.match(p))

    def __contains__(self, path: str) -> bool:
        return merged(path) in self._members

    def file(self, path: str) -> File:
        """What is at a path."""
        member = self._member(path)
        return File(merged(path), member.mode & 0o7777, member.linkname if member.issym() else None)

    def read(self, path: str) -> bytes:
        """Contents of a regular file; links inside the package are followed."""
        for _ in range(8):
            member = self._member(path)
            if member.issym():
                target = member.linkname
                base = "" if target.startswith("/") else posixpath.dirname(merged(path))
                path = posixpath.join(base, target.lstrip("/"))
                continue
            stream = self._tar.extractfile(member)
            if stream is not None:
                return stream.read()
            break
        raise PackageError(f"{path} in {self.deb.name} is not a regular file")

    def _member(self, path: str) -> tarfile.TarInfo:
        try:
            return self._members[merged(path)]
        except KeyError:
            raise PackageError(f"{self.deb.name} has no file {path}") from None

    def copyright(self) -> bytes:
        """The text of the package's copyright file."""
        return self.read(f"usr/share/doc/{self.name}/copyright")

    def licences(self) -> list[str]:
        """Short names of the licences that the copyright file gives.

        Empty when the file is not in Debian's machine-readable form.
        """
        text = self.copyright().decode("utf-8", "replace")
        if not re.search(r"^Format(-Specification)?:", text, re.MULTILINE | re.IGNORECASE):
            return []
        return sorted(set(re.findall(r"^License:[ \t]*(\S.*?)\s*$", text, re.MULTILINE)))

    @property
    def notice_path(self) -> str:
        """Where a guest keeps the package's copyright file."""
        return f"copyright/{self.name}.txt"

    def describe(self, notice: Package) -> dict[str, Any]:
        """The package's entry in a manifest; ``notice`` has its copyright file."""
        source, _, version = self.fields.get("Source", self.name).partition(" (")
        return {
            "package": self.name,
            "file": self.deb.name,
            "version": self.fields["Version"],
            "architecture": self.fields["Architecture"],
            "source": source,
            "source_version": version.rstrip(")") or self.fields["Version"],
            "licences": notice.licences(),
            "copyright": notice.notice_path,
            "sha256": self.sha256(),
        }

    def sha256(self) -> str:
        """SHA-256 of the .deb, in hexadecimal."""
        return hashlib.sha256(self.deb.read_bytes()).hexdigest()
