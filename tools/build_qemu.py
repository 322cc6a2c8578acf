"""Compile QEMU's objects for the core libraries, in the build cache.

The emulator is never linked here: tools/build_core.py takes the objects and
links them with csrc/ into libpanda-<arch>.so.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import build_deps
from project import CSRC, BuildError, cache_dir, digest, jobs, load_toml, locked
from sources import Source, obtain, patch, unpack
from toolchain import FLAGS, Toolchain, run

QEMU = CSRC / "qemu"
RECIPE = "2"  # to be raised when the objects change and nothing else in the key does

OPTIONS = [
    "--without-default-features",
    "--without-default-devices",
    "--enable-tcg",
    "--enable-system",
    "--enable-slirp",
    "--enable-plugins",
    "--enable-fdt=system",
    "--disable-docs",
    "--disable-tools",
    "--disable-guest-agent",
    "--disable-werror",
    "--disable-debug-info",
    "--disable-install-blobs",
    "--disable-containers",
    "-Db_staticpic=true",
    "-Db_pie=false",
]


def arches() -> dict[str, dict[str, str]]:
    """The architectures of csrc/qemu/arches.toml."""
    return load_toml(QEMU / "arches.toml")


@dataclass(frozen=True)
class QemuBuild:
    """A configured build directory in the cache."""

    tools: Toolchain
    source: Source
    prefix: Path
    base: Path

    @property
    def src(self) -> Path:
        """QEMU's patched source tree."""
        return self.base / "src"

    @property
    def dir(self) -> Path:
        """QEMU's build directory; link lines are relative to it."""
        return self.base / "build"

    def target(self, arch: str) -> str:
        """QEMU's name of an architecture's emulator target."""
        return arches()[arch]["target"]

    def link_line(self, arch: str) -> list[str]:
        """Objects and libraries of the emulator, its main() left out."""
        recorded = self.base / f"link-{self.target(arch)}.json"
        words: list[str] = json.loads(recorded.read_text())
        return words

    def compile_line(self, arch: str) -> list[str]:
        """The command, up to the output, that compiles a file for a target."""
        recorded = self.base / f"compile-{self.target(arch)}.json"
        words: list[str] = json.loads(recorded.read_text())
        return words


def build(tools: Toolchain, names: list[str]) -> QemuBuild:
    """Compile the objects for some architectures; what is cached is kept."""
    prefix = build_deps.build(tools)
    source = obtain("qemu")
    patches = sorted((QEMU / "patches").glob("*.patch"))
    configs = sorted((QEMU / "configs").glob("*.mak"))
    table = arches()
    targets = [entry["target"] for entry in table.values()]
    key = digest(
        RECIPE,
        source.key,
        tools.key,
        prefix.parent.name,
        " ".join(OPTIONS + targets),
        *patches,
        *configs,
    )
    base = cache_dir() / f"qemu-{tools.host}-{key}"
    made = QemuBuild(tools, source, prefix, base)
    with locked(base.with_suffix(".lock")):
        if not (base / ".configured").exists():
            shutil.rmtree(base, ignore_errors=True)
            print(f"  QEMU {source.version} ({source.origin}), {len(patches)} patches", flush=True)
            unpack(source, made.src)
            patch(made.src, patches)
            _device_lists(made, table)
            _configure(made, targets)
            (base / ".configured").touch()
        for name in names:
            stamp = base / f".objects-{made.target(name)}"
            if not stamp.exists():
                _compile(made, name)
                stamp.touch()
    return made


def _device_lists(made: QemuBuild, table: dict[str, dict[str, str]]) -> None:
    for entry in table.values():
        folder = made.src / "configs/devices" / f"{entry['target']}-softmmu"
        text = "".join((QEMU / "configs" / f"{d}.mak").read_text() for d in entry["devices"])
        (folder / "pandalite.mak").write_text(text)


def _configure(made: QemuBuild, targets: list[str]) -> None:
    made.dir.mkdir()
    src = made.src
    flags = [*FLAGS, f"-ffile-prefix-map={src}/=", "-ffile-prefix-map=../src/="]
    env = made.tools.environment()
    env.update(
        CC="zcc",
        CXX="zc++",
        AR="zar",
        RANLIB="zranlib",
        OBJCOPY="zobjcopy",
        STRIP="true",
        PKG_CONFIG="pkg-config",
        PKG_CONFIG_LIBDIR=str(made.prefix / "lib/pkgconfig"),
    )
    command: list[str | Path] = [
        src / "configure",
        # Empty, but given: selects meson's cross mode for any host.
        "--cross-prefix=",
        "--host-cc=cc",
        f"--python={made.tools.python}",
        "--target-list=" + ",".join(f"{t}-softmmu" for t in targets),
        *(f"--with-devices-{t}=pandalite" for t in targets),
        *OPTIONS,
        f"--extra-cflags={' '.join(flags)} -I{made.prefix}/include",
        f"--extra-ldflags=-L{made.prefix}/lib",
    ]
    run(command, made.dir, env, made.base / "configure.log")


def _output(made: QemuBuild, *command: str) -> str:
    done = subprocess.run(
        command, cwd=made.dir, env=made.tools.environment(), capture_output=True, text=True
    )
    if done.returncode:
        raise BuildError(f"{' '.join(command)} failed: {done.stderr or done.stdout}")
    return done.stdout


def _compile(made: QemuBuild, name: str) -> None:
    target = made.target(name)
    emulator = f"qemu-system-{target}"
    inputs = _output(made, "ninja", "-t", "inputs", emulator).split()
    wanted = [f for f in inputs if f.endswith((".o", ".a")) and not f.startswith("/")]
    print(f"  QEMU objects for {name}", flush=True)
    response = made.base / f"inputs-{target}.txt"
    response.write_text("\n".join(wanted))
    # zig's driver cannot link the emulator itself; nobody needs it.
    run(
        ["xargs", "-a", response, "ninja", f"-j{jobs()}"],
        made.dir,
        made.tools.environment(),
        made.base / f"ninja-{target}.log",
    )
    database = json.loads(_output(made, "ninja", "-t", "compdb", "-x", "c_LINKER_RSP"))
    command = next(e["command"] for e in database if e["output"] == emulator)
    _save(made.base / f"link-{target}.json", _link_words(shlex.split(command)))
    database = json.loads((made.dir / "compile_commands.json").read_text())
    command = next(
        e["command"]
        for e in database
        if e["file"].endswith("accel/tcg/plugin-gen.c")
        and e["output"].startswith(f"libqemu-{target}-softmmu")
    )
    words = shlex.split(command)
    _save(made.base / f"compile-{target}.json", words[: words.index("-MD")])


def _save(path: Path, words: list[str]) -> None:
    path.write_text(json.dumps(words, indent=0) + "\n")


def _link_words(words: list[str]) -> list[str]:
    """The inputs of the emulator's link line that a library needs too."""
    kept: list[str] = []
    skip = True  # the compiler itself
    for word, following in zip(words, [*words[1:], ""]):
        if skip:
            skip = False
        elif word == "-o" or (word == "-Xlinker" and following.startswith("--dynamic-list")):
            skip = True
        elif (
            word.startswith(("@", "-I", "-Wl,--export-dynamic"))
            or word in ("-pie", "-no-pie", "-Wl,-no-pie")
            or word.endswith("system_main.c.o")
            or "libatomic" in word
        ):
            continue
        else:
            kept.append(word)
    return kept
