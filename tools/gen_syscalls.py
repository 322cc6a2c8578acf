#!/usr/bin/env python3
"""Write the tables of Linux' system calls: their numbers and prototypes.

    tools/gen_syscalls.py             write csrc/syscalls/tables/, pandalite/syscalls/tables.py
    tools/gen_syscalls.py --check     compare, print a diff, exit 1 on a difference

Numbers are those of QEMU's user-mode emulation (``linux-user/*/syscall*.tbl``, in the
build cache), which are the kernel's own tables; prototypes are those of the kernel's
headers in Debian's package ``linux-headers-*-common``. What neither says is in EXTRA.
``--check`` without these sources in the build cache says so and succeeds.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

from debian import Archive, ArchiveError
from guestkit.deb import Package
from project import CSRC, ROOT, cache_dir

TABLES = CSRC / "syscalls" / "tables"
PYTHON = ROOT / "pandalite" / "syscalls" / "tables.py"

SUITE = "trixie"
PACKAGE = r"linux-headers-[0-9.]+\+deb[0-9]+-common"

#: Where the package has prototypes, the first of a name counts.
HEADERS = (
    "include/linux/syscalls.h",
    "include/asm-generic/syscalls.h",
    "include/linux/compat.h",
    "arch/powerpc/include/asm/syscalls.h",
    "arch/mips/include/asm/syscalls.h",
)


class Abi(NamedTuple):
    """A set of numbers."""

    #: QEMU's table, and the words in its second column that count.
    table: str
    kinds: frozenset[str]
    #: Added to the table's numbers.
    base: int = 0


ABIS = {
    "i386": Abi("i386/syscall_32.tbl", frozenset({"i386"})),
    "x86_64": Abi("x86_64/syscall_64.tbl", frozenset({"common", "64"})),
    "arm": Abi("arm/syscall.tbl", frozenset({"common"})),
    "aarch64": Abi(
        "aarch64/syscall_64.tbl",
        frozenset({"common", "64", "renameat", "rlimit", "memfd_secret"}),
    ),
    "mips_o32": Abi("mips/syscall_o32.tbl", frozenset({"o32"}), 4000),
    "mips_n64": Abi("mips64/syscall_n64.tbl", frozenset({"common", "n64"}), 5000),
    "mips_n32": Abi("mips64/syscall_n32.tbl", frozenset({"n32"}), 6000),
    "ppc": Abi("ppc/syscall.tbl", frozenset({"common", "32", "nospu"})),
    "ppc64": Abi("ppc/syscall.tbl", frozenset({"common", "64", "nospu"})),
    "riscv64": Abi(
        "riscv/syscall.tbl", frozenset({"common", "64", "riscv", "rlimit", "memfd_secret"})
    ),
}

#: Calls of one architecture only that are in no table: name -> number.
PRIVATE = {
    "arm": {
        "ARM_breakpoint": 0xF0001,
        "ARM_cacheflush": 0xF0002,
        "ARM_usr26": 0xF0003,
        "ARM_usr32": 0xF0004,
        "ARM_set_tls": 0xF0005,
        "ARM_get_tls": 0xF0006,
    },
}

#: Prototypes that are in no header of the package, or not as callers see them.
EXTRA = {
    "ARM_breakpoint": "void",
    "ARM_cacheflush": "unsigned long start, unsigned long end, unsigned long flags",
    "ARM_usr26": "void",
    "ARM_usr32": "void",
    "ARM_set_tls": "unsigned long tls",
    "ARM_get_tls": "void",
    "arch_prctl": "int option, unsigned long arg2",
    "arm_fadvise64_64": "int fd, int advice, loff_t offset, loff_t len",
    "cachectl": "char *addr, int nbytes, int op",
    "cacheflush": "unsigned long addr, unsigned long bytes, unsigned int cache",
    # Where words have 32 bits it is declared with two halves.
    "fanotify_mark": "int fanotify_fd, unsigned int flags, u64 mask, int fd, "
    "const char __user *pathname",
    "get_thread_area": "struct user_desc __user *u_info",
    "iopl": "unsigned int level",
    "modify_ldt": "int func, void __user *ptr, unsigned long bytecount",
    "ppc_fadvise64_64": "int fd, int advice, loff_t offset, loff_t len",
    "riscv_flush_icache": "unsigned long start, unsigned long end, unsigned long flags",
    "riscv_hwprobe": "struct riscv_hwprobe __user *pairs, size_t pair_count, "
    "size_t cpusetsize, unsigned long __user *cpus, unsigned int flags",
    "set_thread_area": "struct user_desc __user *u_info",
    "syscall": "unsigned long, unsigned long, unsigned long, unsigned long, "
    "unsigned long, unsigned long, unsigned long",
    "sysmips": "long cmd, long arg1, long arg2",
    "vm86": "unsigned long cmd, unsigned long arg",
    "vm86old": "struct vm86_struct __user *user_vm86",
}

#: Names whose entry point is a wrapper: it is the same call to its caller.
RENAMED = {
    "mips_mmap": "mmap",
    "mips_mmap2": "mmap2",
    "ppc64_personality": "personality",
    "ppc_pread64": "pread64",
    "ppc_pwrite64": "pwrite64",
    "ppc_readahead": "readahead",
    "ppc_truncate64": "truncate64",
    "ppc_ftruncate64": "ftruncate64",
    "ppc32_fadvise64": "fadvise64",
    "ppc_sync_file_range2": "sync_file_range2",
    "ppc_fallocate": "fallocate",
    "32_personality": "personality",
}

#: Calls that never come back to the instruction behind them.
NORETURN = frozenset({"exit", "exit_group", "sigreturn", "rt_sigreturn"})

#: Names of a char * that is memory of a given length, not a string.
BUFFERS = frozenset(
    {"addr", "buf", "list", "msg_ptr", "name", "optval", "shmaddr", "u_msg_ptr", "ubuf"}
)

#: Calls whose char * is a string though it is not const.
STRINGS = frozenset({"mount", "umount", "oldumount", "utime", "utimes"})

#: Kinds of arguments, as in csrc/syscalls/table.c: types by their last word.
UNSIGNED_32 = frozenset(
    [
        "unsigned",
        "uint",
        "size_t",
        "compat_size_t",
        "umode_t",
        "u32",
        "__u32",
        "uint32_t",
        "uid_t",
        "gid_t",
        "old_uid_t",
        "old_gid_t",
    ]
)
SIGNED_32 = frozenset(
    [
        "int",
        "pid_t",
        "key_t",
        "key_serial_t",
        "clockid_t",
        "timer_t",
        "mqd_t",
        "qid_t",
        "rwf_t",
        "s32",
        "__s32",
        "compat_pid_t",
    ]
)
WORDS = frozenset(
    [
        "long",
        "off_t",
        "aio_context_t",
        "old_sigset_t",
        "__sighandler_t",
        "cap_user_header_t",
        "cap_user_data_t",
    ]
)
UNSIGNED_64 = frozenset(["loff_t", "u64", "__u64"])


def normal(entry: str) -> str:
    """The name of a call by its entry point, without what marks a wrapper."""
    name = re.sub(r"^(?:compat_|__)?sysm?(?:32|n32)?_", "", entry)
    name = re.sub(r"^ia32_|_wrapper$", "", name)
    if entry.startswith("compat_"):
        # What has 64 bits of time there has it everywhere else under this name.
        name = re.sub(r"_time64$", "", name)
    return RENAMED.get(name, name)


def kind_of(call: str, words: str, name: str) -> str:
    """The letter of an argument's kind."""
    if "*" in words:
        if re.search(r"\bchar \*$", words):
            if call in STRINGS or (words.startswith("const") and name == "name"):
                return "s"
            return "b" if name in BUFFERS or not words.startswith("const") else "s"
        if words.count("*") == 1 and words.replace("const ", "").startswith(("struct", "union")):
            return "p"
        return "b"
    last = words.split()[-1]
    if words in ("unsigned int", "unsigned") or last in UNSIGNED_32:
        return "u"
    if words == "unsigned long" or last in WORDS:
        return "w"
    if last in SIGNED_32 or words.startswith("enum "):
        return "i"
    if last in UNSIGNED_64:
        return "q"
    raise SystemExit(f"{call}: the type {words!r} is of no kind that is known")


#: Words that are a type by themselves: a parameter without a name.
_TYPE_WORDS = UNSIGNED_32 | SIGNED_32 | WORDS | UNSIGNED_64


def argument(call: str, index: int, text: str) -> tuple[str, str, str]:
    """An argument of a prototype: its kind, type and name."""
    text = re.sub(r"\b(?:__user|__force)\b", "", text)
    text = re.sub(r"\s*\*\s*", " *", text)
    text = " ".join(text.split()).replace("* *", "**")
    match = re.fullmatch(r"(.*?[\s*])(\w+)", text)
    name = f"arg{index}"
    if (
        match
        and match[2] not in _TYPE_WORDS
        and not re.fullmatch(r"(?:const )?(?:struct|union|enum) \w+", text)
    ):
        text, name = match[1].strip(), match[2]
    return kind_of(call, text, name), text, name


def prototypes(package: Package, folder: str) -> dict[str, str]:
    """All prototypes of the headers: the arguments as text, by normal name."""
    found: dict[str, str] = {}
    for header in HEADERS:
        text = package.read(f"{folder}/{header}").decode()
        text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
        text = re.sub(r"^#.*$", "", text, flags=re.MULTILINE)
        for match in re.finditer(r"\b\w+\s+((?:compat_)?sys_\w+)\(([^;{}]*?)\)\s*;", text):
            found.setdefault(re.sub("^(?:compat_)?sys_", "", match[1]), " ".join(match[2].split()))
    return {**found, **EXTRA}


def numbers(source: Path, abi: Abi) -> dict[int, tuple[str, str]]:
    """Number -> normal name of an ABI, and the name that programs have for it."""
    found: dict[int, tuple[str, str]] = {}
    for line in (source / abi.table).read_text().splitlines():
        words = line.partition("#")[0].split()
        if len(words) > 3 and words[1] in abi.kinds and words[3] != "sys_ni_syscall":
            found[int(words[0]) + abi.base] = normal(words[3]), words[2]
    return dict(sorted(found.items()))


class Sources:
    """The two sources, as they are in the build cache."""

    def __init__(self, fetch: bool) -> None:
        cache = cache_dir()
        trees = sorted(cache.glob("qemu-*/src/linux-user"))
        if not trees:
            raise FileNotFoundError("QEMU's source is not in the build cache: make core")
        self.qemu = trees[-1]
        downloads = cache / "debian" / f"{SUITE}-amd64"
        if fetch:
            archive = Archive(SUITE, "amd64", cache)
            archive.binary(sorted(archive.package_names(PACKAGE), key=_version)[-1])
        debs = sorted(
            downloads.glob("linux-headers-*-common_*.deb"), key=lambda p: _version(p.name)
        )
        if not debs:
            raise FileNotFoundError("the kernel's headers are not in the build cache")
        self.package = Package(debs[-1])
        self.folder = "usr/src/" + debs[-1].name.partition("_")[0]


def _version(name: str) -> list[int]:
    return [int(word) for word in re.findall(r"\d+", name)]


def generate(sources: Sources) -> dict[Path, str]:
    """The text of each file."""
    tables = {name: numbers(sources.qemu, abi) for name, abi in ABIS.items()}
    by_abi = {
        name: {
            **{number: call for number, (call, _) in table.items()},
            **{number: call for call, number in PRIVATE.get(name, {}).items()},
        }
        for name, table in tables.items()
    }
    public = {
        name: {number: user for number, (call, user) in table.items() if call != user}
        for name, table in tables.items()
    }
    known = prototypes(sources.package, sources.folder)
    used = sorted({call for calls in by_abi.values() for call in calls.values()})
    lines = []
    for call in used:
        if call not in known:
            raise SystemExit(f"no header has a prototype of sys_{call}: add it to EXTRA")
        words = [] if known[call] == "void" else known[call].split(",")
        arguments = [argument(call, i, w.strip()) for i, w in enumerate(words)]
        mark = "!" if call in NORETURN else ""
        lines.append(f"{call}{mark}(" + ", ".join(":".join(a) for a in arguments) + ")")
    kernel = sources.folder.rpartition("/")[2]
    return {
        TABLES / "prototypes.c.inc": _c_text(kernel, "prototypes", lines),
        TABLES / "numbers.c.inc": _c_numbers(kernel, by_abi),
        PYTHON: _python(kernel, lines, by_abi, public),
    }


HEAD = "Generated by tools/gen_syscalls.py from {} and QEMU's\ntables; do not edit."


def _c_comment(kernel: str) -> str:
    text = HEAD.format(kernel).replace("\n", "\n * ")
    return f"/*\n * {text}\n *\n * SPDX-License-Identifier: GPL-2.0-or-later\n */\n"


def _c_text(kernel: str, name: str, lines: list[str]) -> str:
    rows = []
    for line in lines:
        parts = textwrap.wrap(line, 70, break_long_words=False, drop_whitespace=False)
        rows.extend(f'    "{part}"' for part in parts[:-1])
        rows.append(f'    "{parts[-1]}\\n"')
    return _c_comment(kernel) + f"static const char {name}[] =\n" + "\n".join(rows) + ";\n"


def _number_text(calls: dict[int, str]) -> list[str]:
    """Names in the order of their numbers; a number where they do not follow one another."""
    words, following = [], -1
    for number, call in calls.items():
        if number != following:
            words.append(str(number))
        words.append(call)
        following = number + 1
    return textwrap.wrap(" ".join(words), 70)


def _c_numbers(kernel: str, by_abi: dict[str, dict[int, str]]) -> str:
    text = _c_comment(kernel)
    for name, calls in by_abi.items():
        rows = [f'    "{row} "' for row in _number_text(calls)]
        text += f"\n#ifdef NUMBERS_{name.upper()}\n"
        text += f"static const char numbers_{name}[] =\n" + "\n".join(rows) + ";\n#endif\n"
    return text


def _python(
    kernel: str,
    lines: list[str],
    by_abi: dict[str, dict[int, str]],
    public: dict[str, dict[int, str]],
) -> str:
    text = f'"""{HEAD.format(kernel)}"""\n\n'
    text += "#: Prototypes: the kind, type and name of each argument; ``!``: does not return.\n"
    text += 'PROTOTYPES = """\\\n' + "\n".join(lines) + '\n"""\n\n'
    text += "#: Names of calls in the order of their numbers, by ABI; a number at a gap.\n"
    text += _python_names("NUMBERS", by_abi)
    text += "\n#: The names that programs have for them where the kernel's function has another.\n"
    return text + _python_names("PUBLIC", public)


def _python_names(name: str, by_abi: dict[str, dict[int, str]]) -> str:
    rows = [
        f'    "{abi}": """\\\n' + "\n".join(_number_text(calls)) + '\n""",\n'
        for abi, calls in by_abi.items()
    ]
    return f"{name} = {{\n" + "".join(rows) + "}\n"


def main() -> int:
    """Write the tables, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only")
    options = parser.parse_args()
    try:
        sources = Sources(fetch=not options.check)
    except FileNotFoundError as error:
        print(f"gen_syscalls: {error}; nothing compared")
        return 0 if options.check else 1
    except ArchiveError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    status = 0
    for path, text in generate(sources).items():
        old = path.read_text() if path.exists() else ""
        if options.check:
            diff = difflib.unified_diff(old.splitlines(), text.splitlines(), str(path), "new", "")
            for line in diff:
                print(line)
                status = 1
        elif old != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            print(f"  {path.relative_to(ROOT)}")
    return status


if __name__ == "__main__":
    sys.exit(main())
