"""C plugins: those from files, their callbacks, functions and arguments; errors."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ctools import INCLUDE, ROOT, compile_c
from guest import boot, in_guest, run_case

from pandalite import Panda, config
from pandalite.errors import CallbackSignatureError, PluginError
from pandalite.ppp import Signature, declare

EXAMPLE = ROOT / "examples" / "plugins" / "callcount.c"

#: A plugin that listens to the example's callback and calls back on its own.
LISTENER = """
#include "panda/plugin.h"

typedef void (*on_blocks_t)(CPUState *cpu, uint64_t count, bool kernel);
PPP_CB_TYPEDEF(bool, on_heard, uint64_t count);
PPP_PROT_REG_CB(on_heard);
PPP_CB_BOILERPLATE(on_heard)
PPP_CB_TYPEDEF(void, on_types, CPUState *cpu, int32_t a, uint32_t b, int64_t c, uint8_t d,
               int16_t e, uint16_t f, bool g, uint64_t h);
PPP_PROT_REG_CB(on_types);
PPP_CB_BOILERPLATE(on_types)
PPP_CB_TYPEDEF(void, on_text, CPUState *cpu, int32_t a, const char *text);
PPP_PROT_REG_CB(on_text);
PPP_CB_BOILERPLATE(on_text)

static uint64_t heard, with_context;
static bool answer;

static void blocks(CPUState *cpu, uint64_t count, bool kernel)
{
    heard++;
    if (PPP_CHECK_CB(on_types)) {
        PPP_RUN_CB(on_types, cpu, -1, 4294967295u, -2, 200, -3, 65533, true, UINT64_MAX - 4);
    }
    PPP_RUN_CB(on_text, cpu, -7, "text");
    answer |= PPP_RUN_BOOL_CB(on_heard, count);
}

static void blocks_with_context(void *context, CPUState *cpu, uint64_t count, bool kernel)
{
    ++*(uint64_t *)context;
}

PANDA_EXPORT uint64_t get(int what);
uint64_t get(int what)
{
    return what == 0 ? heard : what == 1 ? with_context : answer;
}

bool init_plugin(void *self)
{
    return panda_require("hypercaller") != NULL && panda_get_plugin_by_name("callcount") != NULL
        && PPP_REG_CB("callcount", on_blocks, blocks)
        && PPP_REG_CB_WITH_CONTEXT("callcount", on_blocks, blocks_with_context, &with_context);
}

void uninit_plugin(void *self)
{
    heard += 1000000;
}
"""


def build(source: str, folder: Path, name: str, *options: str) -> Path:
    """Compile a plugin with the options users are told to use."""
    out = folder / f"panda_{name}.so"
    done = compile_c(
        source, folder, *config.cflags(), "-Wall", "-Wextra", "-Werror", *options, "-o", str(out)
    )
    assert done.returncode == 0, done.stderr
    return out


def plugins(folder: Path) -> str:
    """A directory with the example and the listener."""
    quiet = "-Wno-unused-parameter"
    build(EXAMPLE.read_text(), folder, "callcount", quiet)
    build(LISTENER, folder, "listener", quiet)
    return str(folder)


def case_without_api(arch: str, folder: str) -> dict[str, Any]:
    """As on a Python whose functions the core cannot call itself."""
    from pandalite import callbacks

    callbacks._python_api = lambda failed: None
    return case_plugins(arch, folder)


def case_plugins(arch: str, folder: str) -> dict[str, Any]:
    panda = boot(arch, plugin_path=folder)
    result: dict[str, Any] = {"before": list(panda.plugins), "path": panda.get_plugin_path()}
    declare(
        "callcount",
        {"on_blocks": Signature((("cpu", "cpu"), ("count", "u64"), ("kernel", "bool")))},
    )
    kinds = ("cpu", "s32", "u32", "s64", "u8", "s16", "u16", "bool", "u64")
    declare(
        "listener",
        {
            "on_heard": Signature((("count", "u64"),), "bool"),
            "on_types": Signature(tuple(zip("xabcdefgh", kinds))),
            "on_text": Signature((("cpu", "cpu"), ("a", "s32"), ("text", "str"))),
        },
    )
    panda.load_plugin("callcount", {"every": 1000, "verbose": True})
    panda.load_plugin("callcount", {"every": 1})  # is loaded: nothing happens
    seen: list[tuple[int, bool, bool]] = []
    heard: list[int] = []

    @panda.ppp("callcount", "on_blocks")
    def blocks(cpu: Any, count: int, kernel: bool) -> None:
        seen.append((count, kernel, panda.in_kernel(cpu)))

    @panda.ppp("listener", "on_types")
    def types(cpu: Any, *values: Any) -> None:
        result["types"] = [cpu is panda.cpu, *values]

    @panda.ppp("listener", "on_text")
    def text(cpu: Any, number: int, what: bytes) -> None:
        result["text"] = [cpu is panda.cpu, number, what.decode()]

    @panda.ppp("listener", "on_heard", name="other")
    def told(count: int) -> bool:
        heard.append(count)
        return len(heard) > 2

    result["loaded"] = sorted(panda.plugins)
    get_count = panda.plugins["callcount"].get_count
    get_count.restype = __import__("ctypes").c_uint64
    get = panda.plugins["listener"].get

    def work() -> Any:
        result["uname"] = panda.run_serial_cmd("uname -m")
        panda.disable_ppp("other")
        result["heard"] = len(heard)
        panda.run_serial_cmd("uname -m")
        result["heard_later"] = len(heard)
        result["counts"] = [get_count(False), get_count(True)]
        result["get"] = [get(0), get(1), get(2)]
        monitor = panda.run_monitor_cmd
        names = dict(line.split()[::-1] for line in monitor("list_plugins").splitlines())
        result["monitor"] = [monitor(f"unload_plugin {names['hypercaller']}"),
                             monitor("load_plugin coverage mode=edge,pc=nonsense"),
                             "hypercaller" in panda.plugins,
                             monitor("load_plugin hypercaller a=b,c=d"),
                             "hypercaller" in panda.plugins,
                             monitor("unload_plugin 17")]  # fmt: skip

    in_guest(panda, work)
    result["after"] = list(panda.plugins)
    result["uninit"] = get(0)
    result["count"] = len(seen)
    result["multiples"] = all(count % 1000 == 0 for count, _, _ in seen)
    result["modes"] = sorted({(kernel, real) for _, kernel, real in seen})
    # A second run: without plugins, then with the plugin loaded anew.
    seen.clear()

    @panda.queue_blocking
    def again() -> None:
        panda.run_serial_cmd("uname -m")
        result["quiet"] = len(seen)
        panda.load_plugin("callcount", ["every=500"])
        panda.ppp("callcount", "on_blocks")(blocks)
        panda.run_serial_cmd("uname -m")
        panda.end_analysis()

    panda.run()
    result["again"] = len(seen) > 0 and all(count % 500 == 0 for count, _, _ in seen)
    return result


@pytest.mark.parametrize(
    ("arch", "case"),
    [("x86_64", case_plugins), ("arm", case_plugins), ("x86_64", case_without_api)],
)
def test_plugins_from_files(arch: str, case: Any, tmp_path: Path) -> None:
    result = run_case(case, arch, plugins(tmp_path))
    assert result["before"] == []
    assert result["path"] == str(tmp_path)
    assert result["loaded"] == ["callcount", "hypercaller", "listener"]
    assert result["uname"] == {"x86_64": "x86_64", "arm": "armv7l"}[arch]
    assert result["count"] > 20
    assert result["multiples"]
    assert result["modes"] == [[False, False], [True, True]]
    assert result["heard"] == result["heard_later"] > 2
    assert all(count > 1000 for count in result["counts"])
    heard, with_context, answer = result["get"]
    assert heard == with_context > result["heard"]
    assert answer == 1
    assert result["types"] == [True, -1, 2**32 - 1, -2, 200, -3, 65533, True, 2**64 - 5]
    assert result["text"] == [True, -7, "text"]
    assert result["monitor"] == [
        "",
        "Error: plugin coverage: pc=nonsense is no range low-high",
        False,
        "",
        True,
        "Error: there is no plugin 17; list_plugins has their numbers",
    ]
    assert result["after"] == []
    assert 1000000 < result["uninit"] < 1100000  # uninit_plugin() ran, once
    assert result["quiet"] == 0
    assert result["again"]


def test_example_in_cplusplus(tmp_path: Path) -> None:
    cplusplus = ["-x", "c++", "-std=gnu++17", "-Wno-unused-parameter", "-Wno-error"]
    build(EXAMPLE.read_text(), tmp_path, "callcount", *cplusplus)


def case_errors(folder: str) -> list[str]:
    panda = Panda("x86_64", mem="0", extra_args="-M configurable", plugin_path=folder)
    seen = []

    def failing(what: Any, *kinds: type[Exception]) -> None:
        try:
            what()
        except kinds as error:
            seen.append(f"{type(error).__name__}: {error}")
        else:
            seen.append("nothing")

    declare("callcount", {"on_blocks": Signature((("cpu", "cpu"), ("count", "u64")))})
    failing(lambda: panda.load_plugin("nonsense"), ValueError)
    failing(lambda: panda.load_plugin("./nonsense.so"), ValueError)
    failing(lambda: panda.load_plugin("callcount", 5), ValueError)  # type: ignore[arg-type]
    failing(lambda: panda.load_plugin("callcount", {"every": "few"}), PluginError)
    failing(lambda: panda.load_plugin("callcount", {"every": 0}), PluginError)
    failing(lambda: panda.load_plugin("callcount", ["verbose=perhaps"]), PluginError)
    failing(lambda: panda.load_plugin("listener"), PluginError)
    failing(lambda: panda.load_plugin("empty"), PluginError)
    failing(lambda: panda.load_plugin("broken"), PluginError)
    failing(lambda: panda.unload_plugin("callcount"), ValueError)
    ppp = panda.ppp
    failing(lambda: ppp("callcount", "on_blocks", autoload=False)(print), PluginError)
    failing(lambda: ppp("callcount", "on_nothing")(print), CallbackSignatureError)
    failing(lambda: ppp("callcount", "on_blocks")(lambda x: x), CallbackSignatureError)
    failing(lambda: panda.disable_ppp("nothing"), KeyError)
    failing(lambda: panda.plugins["callcount"].nothing, AttributeError)
    seen.append(", ".join(panda.plugins))
    panda.unload_plugins()
    seen.append(", ".join(panda.plugins))
    return seen


def test_errors(tmp_path: Path) -> None:
    plugins(tmp_path)
    build("int x;", tmp_path, "empty")
    (tmp_path / "panda_broken.so").write_bytes(b"\x7fELF, but nothing else")
    found = run_case(case_errors, str(tmp_path))
    for text, wanted in zip(
        found,
        [
            "ValueError: there is no plugin nonsense: built in are ",
            "ValueError: there is no plugin file ./nonsense.so",
            "ValueError: arguments of a plugin are a dict or a list, not int",
            "PluginError: plugin callcount: argument every=few is not a number",
            "PluginError: plugin callcount: init_plugin() has failed",
            "PluginError: plugin callcount: argument verbose=perhaps is not yes or no",
            "PluginError: plugin listener: init_plugin() has failed",
            f"PluginError: {tmp_path}/panda_empty.so is not a plugin: it has no function init_plu",
            "PluginError: plugin broken cannot be loaded: ",
            "ValueError: plugin callcount is not loaded",
            "PluginError: plugin callcount is not loaded: panda.load_plugin('callcount')",
            "CallbackSignatureError: it is not known what on_nothing of plugin callcount",
            "CallbackSignatureError: <lambda> does not fit on_blocks of plugin callcount, which "
            "passes 2 arguments (cpu, count)",
            "KeyError: 'nothing'",
            "AttributeError: plugin callcount has no function nothing",
            "hypercaller, callcount",
            "",
        ],
    ):
        assert text.startswith(wanted), text
    assert len(found) == 17


def case_exception(folder: str) -> list[Any]:
    panda = boot(plugin_path=folder)
    declare(
        "callcount",
        {"on_blocks": Signature((("cpu", "cpu"), ("count", "u64"), ("kernel", "bool")))},
    )
    panda.load_plugin("callcount", {"every": 1})
    calls = []

    @panda.ppp("callcount", "on_blocks")
    def first(cpu: Any, count: int, kernel: bool) -> None:
        calls.append(count)
        raise LookupError("as it should")

    @panda.ppp("callcount", "on_blocks")
    def second(cpu: Any, count: int, kernel: bool) -> None:
        calls.append(-count)

    try:
        panda.run()
    except LookupError as error:
        return [str(error), calls]
    return []


def test_exception_in_a_ppp_callback_ends_the_run(tmp_path: Path) -> None:
    plugins(tmp_path)
    assert run_case(case_exception, str(tmp_path)) == ["as it should", [1]]


def test_config() -> None:
    command = [sys.executable, "-m", "pandalite.config"]
    done = subprocess.run([*command, "--include"], capture_output=True, text=True, cwd=ROOT)
    assert Path(done.stdout.strip()) == INCLUDE
    assert (INCLUDE / "panda" / "plugin.h").is_file()
    done = subprocess.run([*command, "--cflags"], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == config.cflags()


def case_command_line(folder: str) -> dict[str, Any]:
    """PANDA's own options, among QEMU's."""
    os.chdir(folder)
    words = ["-M", "configurable", "-panda", "callcount:every=5,verbose=yes;hypercaller",
             "-panda-arg", "coverage:filename=c.csv", "-os", "linux-64-my:own", "-panda",
             "coverage:mode=edge,full", "-panda-plugin", f"{folder}/panda_noted.so"]  # fmt: skip
    panda = Panda("x86_64", mem="0", extra_args=words, plugin_path=folder)
    noted = panda.plugins["noted"]
    out = {
        "loaded": list(panda.plugins),
        "files": sorted(path.name for path in Path(folder).glob("*.csv")),
        "os": [str(panda.os), panda.get_os_family(), noted.family()],
        "words": panda._extra_words,
        "inits": [noted.count(0), noted.count(1)],
        "help": [],
    }
    panda.unload_plugins()
    for name in ("coverage", "callcount", "hooks", "noted"):
        try:
            panda.load_plugin(name, ["help"])
        except PluginError as error:
            out["help"].append(str(error))
    # What has begun its work with an argument that is none ends it.
    try:
        panda.load_plugin("noted", ["n=none"])
    except PluginError as error:
        out["help"].append(str(error))
    out["after"] = [list(panda.plugins), noted.count(0), noted.count(1)]
    return out


NOTED = """
#include "panda/plugin.h"

static int counts[2];

PANDA_EXPORT int count(int what);
int count(int what)
{
    return counts[what];
}

PANDA_EXPORT int family(void);
int family(void)
{
    return panda_os_familyno == OS_LINUX;
}

bool init_plugin(void *self)
{
    panda_arg_list *args = panda_get_args("noted");

    (void)self;
    panda_parse_uint32(args, "n", 7);
    panda_free_args(args);
    counts[0]++;
    return true;
}

void uninit_plugin(void *self)
{
    (void)self;
    counts[1]++;
}
"""


def test_command_line(tmp_path: Path) -> None:
    plugins(tmp_path)
    build(NOTED, tmp_path, "noted")
    out = run_case(case_command_line, str(tmp_path))
    assert out["loaded"] == ["callcount", "hypercaller", "coverage", "noted"]
    assert out["files"] == ["c.csv"]
    assert out["os"] == ["linux-64-my:own", "OS_LINUX", 1]
    assert out["words"] == ["-M", "configurable"]
    assert out["inits"] == [1, 0]
    coverage, callcount, hooks, noted, wrong = out["help"]
    assert coverage.startswith(
        "plugin coverage has the arguments\n  filename (a text, coverage.csv)"
    )
    assert "\n  full (yes or no, no): each time a block runs" in coverage
    assert callcount.splitlines()[1:] == [
        "  every (a number, 1000000): blocks between callbacks",
        "  verbose (yes or no, no): print the counts at the end",
    ]
    assert hooks == "plugin hooks has no arguments"
    assert noted == "plugin noted has the arguments\n  n (a number, 7)"
    assert wrong == "plugin noted: argument n=none is not a number of 32 bits"
    # Begun and ended: with its words, for help, with the wrong argument.
    assert out["after"] == [[], 3, 3]


@pytest.mark.parametrize(
    "words", [["-panda"], ["-panda-arg", "coverage"], ["-os", "unheard"], ["-panda", "nonsense"]]
)
def test_command_lines_that_make_no_sense(words: list[str]) -> None:
    assert "ValueError" in run_case(case_refused, words)


def case_refused(words: list[str]) -> str:
    try:
        Panda("x86_64", mem="0", extra_args=["-M", "configurable", *words])
    except ValueError as error:
        return f"{type(error).__name__}: {error}"
    return "accepted"


def case_builtin(folder: str) -> dict[str, str]:
    panda = Panda("x86_64", mem="0", extra_args="-M configurable")
    found = panda.builtin_plugins()
    needed = {"network": {"file": "packets.pcap"}, "scissors": {"name": "part"}}
    # Some write files where they are.
    os.chdir(folder)
    for name in found:
        panda.load_plugin(name, needed.get(name))
        panda.unload_plugin(name)
        panda.load_plugin(name, needed.get(name))
    assert set(panda.plugins) == set(found)
    panda.unload_plugins()
    assert not list(panda.plugins)
    return found


def test_builtin_plugins_are_listed(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "plugins.md").read_text()
    listed = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", text, re.MULTILINE))
    found = run_case(case_builtin, str(tmp_path))
    assert listed == found
