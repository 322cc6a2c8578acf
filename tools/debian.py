"""Debian's archive as a source of packages, through a private apt configuration.

The machine's own apt setup is only read (for the mirror's address and the
archive keyring), never changed. Files are verified by apt against the signed
index and kept in a download directory.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class ArchiveError(Exception):
    """The archive could not give what was asked for."""


def mirror_uri() -> str:
    """The address of the Debian mirror this machine uses.

    ``PANDALITE_DEBIAN_MIRROR`` overrides what apt's own sources say.
    """
    given = os.environ.get("PANDALITE_DEBIAN_MIRROR")
    if given:
        return given.rstrip("/")
    etc = Path("/etc/apt")
    files = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]
    pattern = re.compile(
        r"^(?:URIs:\s*|deb\s+(?:\[[^\]]*\]\s+)?)(\S+?/debian)/?(?:\s|$)", re.MULTILINE
    )
    for file in files:
        if file.suffix in (".list", ".sources") and file.is_file():
            found = pattern.search(file.read_text(errors="replace"))
            if found:
                return found.group(1)
    raise ArchiveError(
        "no Debian mirror found in /etc/apt; set PANDALITE_DEBIAN_MIRROR to the "
        "address of one (it ends in /debian)"
    )


class Archive:
    """One suite of Debian's archive, for one architecture."""

    def __init__(self, suite: str, architecture: str, cache: Path) -> None:
        self.suite = suite
        self.architecture = architecture
        self.downloads = cache / "debian" / f"{suite}-{architecture}"
        self._state = cache / "apt" / f"{suite}-{architecture}"
        self._updated = False
        self._entries: dict[str, dict[str, str]] = {}

    def _configure(self) -> Path:
        """Write the private configuration; returns its path."""
        if not shutil.which("apt-get"):
            raise ArchiveError("apt-get was not found: this step needs a Debian system")
        if not KEYRING.exists():
            raise ArchiveError(f"{KEYRING} is missing: install debian-archive-keyring")
        state = self._state
        for sub in ("lists/partial", "state", "cache/archives/partial"):
            (state / sub).mkdir(parents=True, exist_ok=True)
        self.downloads.mkdir(parents=True, exist_ok=True)
        (state / "state/status").touch()
        uri = mirror_uri()
        (state / "sources.list").write_text(
            "".join(
                f"{kind} [signed-by={KEYRING}] {uri} {self.suite} main\n"
                for kind in ("deb", "deb-src")
            )
        )
        config = state / "apt.conf"
        config.write_text(
            f'Dir::Etc::SourceList "{state}/sources.list";\n'
            'Dir::Etc::SourceParts "/dev/null";\n'
            'Dir::Etc::Preferences "/dev/null";\n'
            'Dir::Etc::PreferencesParts "/dev/null";\n'
            f'Dir::State "{state}/state";\n'
            f'Dir::State::Lists "{state}/lists";\n'
            f'Dir::State::status "{state}/state/status";\n'
            f'Dir::Cache "{state}/cache";\n'
            'Dir::Cache::pkgcache "";\n'
            'Dir::Cache::srcpkgcache "";\n'
            f'APT::Architecture "{self.architecture}";\n'
            f'APT::Architectures {{ "{self.architecture}"; }};\n'
            'Acquire::Languages "none";\n'
            'Acquire::Retries "3";\n'
            'APT::Sandbox::User "root";\n'
        )
        return config

    def _run(self, command: list[str], cwd: Path | None = None) -> str:
        config = self._state / "apt.conf"
        done = subprocess.run(
            [command[0], "-qq", "-c", str(config), *command[1:]],
            cwd=cwd,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise ArchiveError(
                f"{' '.join(command)} ({self.suite}/{self.architecture}) failed:\n"
                + (done.stderr or done.stdout).strip()
            )
        return done.stdout

    def update(self) -> None:
        """Fetch the package index (once per object)."""
        if not self._updated:
            self._configure()
            self._run(["apt-get", "update"])
            self._updated = True

    def package_names(self, pattern: str) -> list[str]:
        """Names of binary packages that match a regular expression fully."""
        self.update()
        wanted = re.compile(pattern)
        prefix = re.match(r"[a-z0-9-]*", pattern)
        names = self._run(["apt-cache", "pkgnames", prefix.group() if prefix else ""])
        return sorted(n for n in names.split() if wanted.fullmatch(n))

    def show(self, package: str) -> dict[str, str]:
        """The index entry of the newest version of a binary package."""
        return self.show_all([package])[package]

    def show_all(self, packages: list[str]) -> dict[str, dict[str, str]]:
        """The index entries of several packages, by name; one call of apt for all."""
        self.update()
        unknown = [p for p in packages if p not in self._entries]
        if unknown:
            text = self._run(["apt-cache", "show", "--no-all-versions", *unknown])
            for paragraph in text.split("\n\n"):
                fields: dict[str, str] = {}
                for line in paragraph.splitlines():
                    name, colon, value = line.partition(": ")
                    if colon and not line.startswith(" "):
                        fields[name] = value.strip()
                if "Package" in fields:
                    self._entries.setdefault(fields["Package"], fields)
        for package in packages:
            if package not in self._entries:
                raise ArchiveError(f"no package {package} in {self.suite}/{self.architecture}")
        return {p: self._entries[p] for p in packages}

    def closure(self, packages: list[str]) -> list[str]:
        """Packages and all they depend on, as apt would install them in an empty system.

        ``?essential`` stands for the essential ones. What is only recommended is
        left out.
        """
        self.update()
        options = ["-s", "-o", "APT::Install-Recommends=false"]
        said = self._run(["apt-get", *options, "install", *packages])
        return [line.split()[1] for line in said.splitlines() if line.startswith("Inst ")]

    def binary(self, package: str) -> Path:
        """Download the newest version of a binary package; returns the .deb."""
        return self.binaries([package])[package]

    def binaries(self, packages: list[str]) -> dict[str, Path]:
        """Download the newest versions of binary packages; returns the .debs by name."""
        entries = self.show_all(packages)
        files = {p: self.downloads / Path(e["Filename"]).name for p, e in entries.items()}
        if missing := [p for p, file in files.items() if not file.exists()]:
            self._run(["apt-get", "download", *missing], cwd=self.downloads)
        for package in missing:
            # apt escapes the epoch's colon in the name it gives the file.
            version = entries[package]["Version"].replace(":", "%3a")
            for made in self.downloads.glob(f"{package}_{version}_*.deb"):
                if made != files[package]:
                    made.rename(files[package])
        for package, file in files.items():
            if not file.exists():
                raise ArchiveError(f"apt-get download {package} left no file in {self.downloads}")
        return files

    def source_names(self, package: str) -> list[str]:
        """Names of a source package's files; ``package`` may be ``name=version``."""
        self.update()
        listing = self._run(["apt-get", "source", "--only-source", "--print-uris", package])
        names = re.findall(r"'[^']+' (\S+) \d+ \S+", listing)
        if not names:
            raise ArchiveError(f"no source package {package} in {self.suite}")
        return names

    def source(self, package: str) -> list[Path]:
        """Download a source package; returns its files, the .dsc last.

        ``package`` may be ``name=version``. A mirror may lack single files of a
        source package: what is missing is left out of the result, and it is the
        caller's part to cope.
        """
        names = self.source_names(package)
        if not all((self.downloads / n).exists() for n in names):
            try:
                self._run(
                    ["apt-get", "source", "--only-source", "--download-only", package],
                    cwd=self.downloads,
                )
            except ArchiveError:
                if not any((self.downloads / n).exists() for n in names):
                    raise
        files = [self.downloads / n for n in names if (self.downloads / n).exists()]
        return sorted(files, key=lambda f: (f.suffix == ".dsc", f.name))
