"""Profiles of kernels (kernelinfo.conf): written, read, checked against memory."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from guest import ROOT, boot, in_guest, run_case
from test_os_guest import at_rest, lines_of

from pandalite.errors import IntrospectionError, PluginError


def _all(panda: Any) -> list[Any]:
    """Everything that is told of the guest, in one moment."""
    found = []
    for p in panda.os.processes():
        words = [repr(p), p.task, p.mm, p.pgd]
        if p.mm:
            words += [*map(repr, p.mappings()), *map(repr, p.files()), repr(p.threads())]
            words += [p.cmdline(), p.environ(), p.exe()]
        found.append(words)
    try:
        found.append([*map(repr, panda.os.modules()), *map(repr, panda.os.mounts())])
    except IntrospectionError as error:
        found.append([str(error)])
    return found


def _offsets(panda: Any) -> dict[str, tuple[int, str]]:
    """Of each field that is known: its offset and where it is from."""
    rows = re.findall(r"^(\w+\.\S+): (-?\d+) \((\w+)", panda.os.report(), re.MULTILINE)
    return {name: (int(offset), source) for name, offset, source in rows}


def case_round_trip(arch: str, path: str) -> dict[str, Any]:
    panda = boot(arch)

    def look(cpu: Any) -> dict[str, Any]:
        before, known = _all(panda), _offsets(panda)
        text = panda.os.profile()
        other = panda.os.profile("my:own")
        Path(path).write_text(text + "\n" + other)
        out: dict[str, Any] = {"text": text, "same": [], "sources": [], "changed": []}
        for group in (None, "my:own"):
            panda.os.use_profile(path, group)
            out["same"].append(_all(panda) == before)
            given = _offsets(panda)
            out["sources"].append(sorted({source for _, source in given.values()}))
            out["changed"].append([k for k in known if known[k][0] != given.get(k, (None,))[0]])
        panda.os.use_profile(None)
        out["without"] = _all(panda) == before and _offsets(panda) == known
        out["names"] = [p.name for p in panda.os.processes()]
        return out

    def work() -> dict[str, Any]:
        panda.run_serial_cmd("sleep 1000 6</dev/zero &")
        out = at_rest(panda, look)
        out["uname"] = panda.run_serial_cmd("uname -r; uname -v; uname -m").splitlines()
        panda.load_plugin("osi_linux", {"kconf_file": path, "kconf_group": "my:own"})
        out["plugin"] = at_rest(panda, lambda cpu: sorted({s for _, s in _offsets(panda).values()}))
        panda.revert_sync("root")
        out["later"] = at_rest(panda, lambda cpu: len(panda.os.processes()))
        panda.unload_plugin("osi_linux")
        out["ended"] = at_rest(panda, lambda cpu: sorted({s for _, s in _offsets(panda).values()}))
        return out

    return in_guest(panda, work)


@pytest.mark.parametrize("arch", ["x86_64", "i386"])
def test_round_trip(arch: str, tmp_path: Path) -> None:
    out = run_case(case_round_trip, arch, str(tmp_path / "kernelinfo.conf"), timeout=300)
    assert out["same"] == [True, True] and out["without"]
    assert out["changed"] == [[], []]
    # Nothing was found otherwise: the profile has it all.
    assert out["sources"] == [["profile"], ["profile"]] and out["plugin"] == ["profile"]
    assert out["later"] > 20 and "profile" not in out["ended"]
    release, version, machine = out["uname"]
    lines = out["text"].splitlines()
    assert lines[0] == f"[{release}]"
    assert f"name={release}|{version}|{machine}" in lines
    assert "task.comm_size=16" in lines
    word = 8 if arch == "x86_64" else 4
    assert f"path.mnt_parent_offset={-2 * word}" in lines
    assert f"path.mnt_mountpoint_offset={-word}" in lines
    keys = {line.split("=")[0] for line in lines}
    assert {"task.init_addr", "task.tasks_offset", "mm.pgd_offset", "qstr.name_offset"} <= keys


#: Of each key that is made wrong: by how much, and what the error has to name.
WRONG = {
    "task.tasks_offset": "task.tasks_offset",
    "task.pid_offset": "task.pid_offset",
    "task.tgid_offset": "task.tgid_offset",
    "task.comm_offset": "task.comm_offset",
    "task.real_parent_offset": "task.real_parent_offset",
    "task.mm_offset": "task.mm_offset",
    "task.group_leader_offset": "task.group_leader_offset",
    "task.cred_offset": "cred",
    "task.stack_offset": "task.stack_offset",
    "task.files_offset": "task.files_offset",
    "mm.pgd_offset": "mm.pgd_offset",
    "mm.arg_start_offset": "mm.arg_start_offset",
    "mm.start_stack_offset": "mm.start_stack_offset",
    "vma.vm_start_offset": "vma.vm_start_offset",
    "vma.vm_end_offset": "vma.vm_end_offset",
    "vma.vm_mm_offset": "vma.vm_mm_offset",
    "vma.vm_file_offset": "vma.vm_file_offset",
    "fs.f_path_dentry_offset": "fs.f_path_dentry_offset",
    "path.d_name_offset": "path.d_name_offset",
    "fs.fdt_offset": "fs.fdt_offset",
}


def case_wrong(arch: str, path: str) -> dict[str, Any]:
    panda = boot(arch)
    out: dict[str, Any] = {"said": {}, "plugins": []}

    def refusal(function: Any, *args: Any) -> str:
        try:
            function(*args)
        except (IntrospectionError, ValueError) as error:
            return f"{type(error).__name__}: {error}"
        return "accepted"

    def use(text: str, group: str | None = None) -> str:
        Path(path).write_text(text)
        panda.os.use_profile(path, group)
        return refusal(panda.os.processes)

    def look(cpu: Any) -> None:
        text, release = panda.os.profile(), panda.os.release
        for key in WRONG:
            for change in (-16, 24):
                wrong = re.sub(
                    rf"^{re.escape(key)}=(\d+)$",
                    lambda m, by=change, key=key: f"{key}={max(int(m[1]) + by, 0)}",
                    text,
                    flags=re.MULTILINE,
                )
                if wrong != text:
                    out["said"].setdefault(key, []).append(use(wrong))
        out["other"] = use(re.sub("name=.*", "name=1.2.3|#1|x", text.replace(release, "1.2.3")))
        out["missing"] = use(re.sub("task.mm_offset=.*\n", "", text))
        out["no number"] = use(re.sub("task.mm_offset=.*", "task.mm_offset=five", text))
        # What PANDA's own files have: no keys of ours.
        out["plain"] = use("# by hand\n" + re.sub("pandalite[.].*\n", "", text).replace("=", " = "))
        out["plain maps"] = len(panda.os.processes()[1].mappings())
        out["no group"] = refusal(panda.os.use_profile, path, "none such")
        out["no file"] = refusal(panda.os.use_profile, path + "x")
        Path(path).write_text("nonsense")
        out["no profile"] = refusal(panda.os.use_profile, path)
        panda.os.use_profile(None)
        out["again"] = refusal(panda.os.processes)

    def work() -> dict[str, Any]:
        at_rest(panda, look)
        for args in ({"kconf_file": path + "x"}, {"kconf_group": "x"}):
            try:
                panda.load_plugin("osi_linux", args)
            except PluginError as error:
                out["plugins"].append(str(error))
        out["shell"] = lines_of(panda, "echo alive")
        return out

    return in_guest(panda, work)


@pytest.mark.parametrize("arch", ["x86_64", "i386"])
def test_wrong_profiles(arch: str, tmp_path: Path) -> None:
    path = str(tmp_path / "kernelinfo.conf")
    out = run_case(case_wrong, arch, path, timeout=300)
    assert len(out["said"]) >= 18
    bad = [
        (key, text)
        for key, said in out["said"].items()
        for text in said
        if not text.startswith("IntrospectionError") or WRONG[key] not in text or path not in text
    ]
    assert not bad
    assert "kconf_group" in out["other"] and "IntrospectionError" in out["other"]
    assert "task.mm_offset" in out["missing"] and "'five'" in out["no number"]
    assert out["plain"] == out["again"] == "accepted" and out["plain maps"] > 2
    assert "ValueError" in out["no group"] and "it has " in out["no group"]
    assert "ValueError" in out["no file"] and "ValueError" in out["no profile"]
    assert len(out["plugins"]) == 2 and "kconf_group" in out["plugins"][1]
    assert out["shell"] == ["alive"]


def test_tool(tmp_path: Path) -> None:
    file = tmp_path / "made.conf"
    command = [sys.executable, "-m", "pandalite.kernelinfo", "i386", "-g", "mine", "-o", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert file.read_text().startswith("[mine]\nname=")
    assert "task.tasks_offset=" in file.read_text()
    command[3] = "no-such-guest"
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "no-such-guest" in done.stderr
    assert "Traceback" not in done.stderr


def case_named(folder: str) -> dict[str, Any]:
    """Panda(os_version=) names the group that is taken."""
    panda = boot("x86_64", os_version="linux-64-my:own")
    out: dict[str, Any] = {}
    os.chdir(folder)

    def sources() -> list[str]:
        return sorted({source for _, source in _offsets(panda).values()})

    def refusal(function: Any) -> str:
        try:
            return repr(function())
        except (IntrospectionError, PluginError) as error:
            return f"{type(error).__name__}: {error}"

    def loaded(**args: str) -> list[str] | str:
        said = refusal(lambda: panda.load_plugin("osi_linux", args))
        found = sources()
        if "osi_linux" in panda.plugins:
            panda.unload_plugin("osi_linux")
        return found if said == "None" else said

    def look(cpu: Any) -> None:
        out["without a file"] = [loaded(), loaded(kconf_group="my:own")]
        text, other = panda.os.profile(), panda.os.profile("my:own")
        # That of the kernel's release is wrong.
        wrong = re.sub(r"task\.mm_offset=(\d+)", "task.mm_offset=8", text)
        Path("kernelinfo.conf").write_text(wrong + "\n" + other)
        panda.os.use_profile("kernelinfo.conf")
        out["named"] = sources()
        panda.os.use_profile(None)
        out["plugin"] = [loaded(), loaded(kconf_group="my:own"), loaded(kconf_group="other")]
        names = (panda.libpanda.panda_os_name(), panda.libpanda.panda_os_variant())
        out["names"] = [name.decode() for name in names]
        out["family"] = panda.libpanda.panda_os_family()
        panda.set_os_name("linux_64_nothing")
        out["unnamed"] = loaded()
        panda.os.use_profile("kernelinfo.conf")
        out["by release"] = refusal(panda.os.processes)
        panda.os.use_profile(None)
        status = [panda.libpanda.panda_set_os_name(n) for n in (b"linux", b"os-64-x", b"linux-64-")]
        out["refused"] = [s < 0 for s in status]
        out["kept"] = panda.libpanda.panda_os_variant().decode()

    def work() -> dict[str, Any]:
        panda.run_serial_cmd("true")
        at_rest(panda, look)
        return out

    return in_guest(panda, work)


def test_groups_named_by_the_system(tmp_path: Path) -> None:
    out = run_case(case_named, str(tmp_path))
    assert out["without a file"][0] == ["BTF"]
    assert "kconf_group needs kconf_file" in out["without a file"][1]
    assert out["named"] == ["profile"]
    assert out["plugin"][:2] == [["profile"], ["profile"]]
    assert out["plugin"][2].startswith("PluginError: ") and "no group 'other'" in out["plugin"][2]
    assert out["names"] == ["linux-64-my:own", "my:own"] and out["family"] == 2
    assert out["unnamed"] == ["BTF"]
    assert out["by release"].startswith("IntrospectionError: ")
    assert "task.mm_offset" in out["by release"]
    assert out["refused"] == [True, True, True] and out["kept"] == "nothing"
