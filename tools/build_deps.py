"""Build the libraries QEMU needs, static and position independent.

Static and hidden inside the core library, so that it runs on hosts that have
none of them and beside a process that has loaded others.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from project import cache_dir, digest, jobs, locked, native
from sources import Source, obtain, unpack
from toolchain import FLAGS, Toolchain, run

LIBRARIES = ("zlib", "pcre2", "libfdt", "glib", "libslirp")
RECIPE = "1"  # to be raised when a recipe below changes


def build(tools: Toolchain) -> Path:
    """Build all libraries into a prefix in the cache; returns the prefix."""
    sources = {name: obtain(name) for name in LIBRARIES}
    key = digest(RECIPE, tools.key, *(s.key for s in sources.values()))
    base = cache_dir() / f"deps-{tools.host}-{key}"
    prefix = base / "prefix"
    with locked(base.with_suffix(".lock")):
        if (base / ".complete").exists():
            return prefix
        shutil.rmtree(base, ignore_errors=True)
        builder = _Builder(tools, base, prefix)
        for name, source in sources.items():
            print(f"  library {name} {source.version} ({source.origin})", flush=True)
            builder.build(source)
        shutil.rmtree(base / "build")
        (base / ".complete").touch()
    return prefix


class _Builder:
    def __init__(self, tools: Toolchain, base: Path, prefix: Path) -> None:
        self.tools = tools
        self.prefix = prefix
        self.work = base / "build"
        self.log = base / "log"
        self.env = tools.environment()
        for folder in (self.work, self.log, prefix / "include", prefix / "lib/pkgconfig"):
            folder.mkdir(parents=True)
        self.cross = self.work / "cross.ini"
        self.cross.write_text(self._cross_file())

    def _cross_file(self) -> str:
        flags = ", ".join(f"'{f}'" for f in FLAGS)
        host = self.tools.host
        runs = "needs_exe_wrapper = false\n" if host == native() else ""
        return (
            "[binaries]\n"
            "c = 'zcc'\ncpp = 'zc++'\nar = 'zar'\nranlib = 'zranlib'\n"
            "strip = 'true'\npkg-config = 'pkg-config'\n"
            f"[properties]\npkg_config_libdir = '{self.prefix}/lib/pkgconfig'\n{runs}"
            f"[built-in options]\nc_args = [{flags}]\ncpp_args = [{flags}]\n"
            f"[host_machine]\nsystem = 'linux'\ncpu_family = '{host}'\n"
            f"cpu = '{host}'\nendian = 'little'\n"
        )

    def build(self, source: Source) -> None:
        tree = self.work / source.name
        unpack(source, tree)
        flags = [*FLAGS, f"-ffile-prefix-map={tree}=", "-ffile-prefix-map=../="]
        getattr(self, f"_{source.name}")(tree, " ".join(["-O2", *flags]))

    def _run(self, name: str, command: list[str | Path], cwd: Path, **env: str) -> None:
        run(command, cwd, {**self.env, **env}, self.log / f"{name}.log")

    def _install(self, files: list[Path], folder: str) -> None:
        target = self.prefix / folder
        target.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copy(file, target)

    def _meson(self, name: str, tree: Path, *options: str) -> Path:
        build = tree / "_build"
        self._run(
            name,
            [
                *("meson", "setup", build, tree, "--cross-file", self.cross),
                # A neutral prefix: glib compiles it in.
                *("--prefix=/usr", "--libdir=lib", "--buildtype=release"),
                *("-Ddefault_library=static", "--wrap-mode=nodownload"),
                *options,
            ],
            tree,
        )
        return build

    def _pkgconfig(self, name: str, version: str, libs: str = "") -> None:
        (self.prefix / f"lib/pkgconfig/{name}.pc").write_text(
            f"Name: {name}\nDescription: {name}\nVersion: {version}\n"
            f"Libs: -L{self.prefix}/lib {libs}\nCflags: -I{self.prefix}/include\n"
        )

    def _zlib(self, tree: Path, flags: str) -> None:
        variables = {
            "CHOST": self.tools.triple,
            "CC": "zcc",
            "AR": "zar",
            "RANLIB": "zranlib",
            "CFLAGS": flags,
        }
        self._run("zlib", ["./configure", "--static", "--prefix=/usr"], tree, **variables)
        self._run("zlib", ["make", f"-j{jobs()}", "libz.a"], tree, **variables)
        self._install([tree / "libz.a"], "lib")
        self._install([tree / "zlib.h", tree / "zconf.h"], "include")
        self._pkgconfig("zlib", "1.3.1", "-lz")

    def _pcre2(self, tree: Path, flags: str) -> None:
        self._run(
            "pcre2",
            [
                *("./configure", f"--host={self.tools.triple}", "--prefix=/usr"),
                *("CC=zcc", "AR=zar", "RANLIB=zranlib", f"CFLAGS={flags}"),
                *("--disable-shared", "--enable-static", "--with-pic", "--disable-jit"),
            ],
            tree,
        )
        self._run("pcre2", ["make", f"-j{jobs()}", "libpcre2-8.la"], tree)
        self._install([tree / ".libs/libpcre2-8.a"], "lib")
        self._install([tree / "src/pcre2.h"], "include")
        self._pkgconfig("libpcre2-8", "10.46", "-lpcre2-8")

    def _libfdt(self, tree: Path, flags: str) -> None:
        del flags  # meson takes them from the cross file
        build = self._meson(
            "libfdt",
            tree,
            *("-Dtests=false", "-Dtools=false", "-Dpython=disabled"),
            *("-Dyaml=disabled", "-Dvalgrind=disabled"),
        )
        self._run("libfdt", ["ninja", "-C", build, "libfdt/libfdt.a"], tree)
        self._install([build / "libfdt/libfdt.a"], "lib")
        headers = [tree / "libfdt" / h for h in ("fdt.h", "libfdt.h", "libfdt_env.h")]
        self._install(headers, "include")
        self._pkgconfig("libfdt", "1.7.2", "-lfdt")

    def _glib(self, tree: Path, flags: str) -> None:
        del flags
        # libffi is for gobject, which is not built; configure asks for it anyway.
        self._pkgconfig("libffi", "3.4.6")
        off = [
            *("introspection", "nls", "selinux", "libmount", "sysprof", "man-pages"),
            *("dtrace", "systemtap", "libelf", "glib_debug"),
        ]
        build = self._meson(
            "glib",
            tree,
            *("-Dtests=false", "-Dxattr=false"),
            *(f"-D{name}=disabled" for name in off),
        )
        archives = ["glib/libglib-2.0.a", "gmodule/libgmodule-2.0.a"]
        self._run("glib", ["ninja", f"-j{jobs()}", "-C", build, *archives], tree)
        self._install([build / a for a in archives], "lib")
        top = "include/glib-2.0"
        self._install([tree / "glib/glib.h", tree / "glib/glib-unix.h"], top)
        self._install([*tree.glob("glib/*.h"), *build.glob("glib/*.h")], f"{top}/glib")
        self._install([*tree.glob("glib/deprecated/*.h")], f"{top}/glib/deprecated")
        self._install([tree / "gmodule/gmodule.h"], top)
        self._install([build / "gmodule/gmodule-visibility.h"], f"{top}/gmodule")
        self._install([build / "glib/glibconfig.h"], "lib/glib-2.0/include")
        for name in ("glib-2.0", "gmodule-2.0", "gmodule-export-2.0", "gmodule-no-export-2.0"):
            text = (build / "meson-private" / f"{name}.pc").read_text()
            # compiler-rt has the atomic helpers; the host's libatomic is not wanted.
            text = text.replace(" -latomic", "").replace("prefix=/usr", f"prefix={self.prefix}")
            (self.prefix / f"lib/pkgconfig/{name}.pc").write_text(text)

    def _libslirp(self, tree: Path, flags: str) -> None:
        del flags
        build = self._meson("libslirp", tree)
        self._run("libslirp", ["ninja", f"-j{jobs()}", "-C", build], tree)
        self._install([build / "libslirp.a"], "lib")
        headers = [tree / "src/libslirp.h", build / "libslirp-version.h"]
        self._install(headers, "include/slirp")
        text = (build / "meson-private/slirp.pc").read_text()
        text = text.replace("prefix=/usr", f"prefix={self.prefix}")
        (self.prefix / "lib/pkgconfig/slirp.pc").write_text(text)
