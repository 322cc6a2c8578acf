"""What the documents say is so: the status tables, the example, variables, links."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pandalite import unsupported
from pandalite._bindings import loader
from pandalite._bindings.callbacks import KINDS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
DOCUMENTS += sorted((ROOT / "docs").glob("*.md"))


def rows(first: str) -> list[tuple[str, str]]:
    """The rows of the README's table whose head begins with a text."""
    lines = iter(README.splitlines())
    for line in lines:
        if line.startswith(f"| {first}"):
            break
    else:
        raise AssertionError(f"the README has no table {first!r}")
    next(lines)
    found = []
    for line in lines:
        if not line.startswith("|"):
            break
        what, state = (cell.strip() for cell in line.strip("|").split("|"))
        found.append((what, state))
    return found


def example() -> str:
    """The README's Python code; there is one piece."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return str(code)


@pytest.mark.parametrize("feature", unsupported.FEATURES)
def test_missing_features_are_listed(feature: str) -> None:
    assert (feature, "not yet") in rows("PyPANDA's `Panda`")


@pytest.mark.parametrize("attribute", unsupported.ATTRIBUTES)
def test_missing_attributes_are_listed(attribute: str) -> None:
    listed = [w for w, state in rows("PyPANDA's `Panda`") if state.startswith("not there")]
    assert f"`{attribute}`" in " ".join(listed)


def test_nothing_else_is_called_missing() -> None:
    missing = {what for what, state in rows("PyPANDA's `Panda`") if state.startswith("not yet")}
    assert missing == set(unsupported.FEATURES)


def test_working_methods_exist() -> None:
    from pandalite import Panda, blocking

    assert blocking
    missing = {name for names in unsupported.FEATURES.values() for name in names}
    for what, state in rows("PyPANDA's `Panda`"):
        if not state.startswith(("not yet", "not there")):
            for name in re.findall(r"`(\w+)`", what):
                assert hasattr(Panda, name) or name == "blocking"
                assert name not in missing


def test_callback_kinds() -> None:
    core = loader.load("x86_64")
    listed: dict[str, str] = {}
    for names, state in rows("callback kinds"):
        for name in re.findall(r"`(\w+)`", names):
            assert name not in listed
            listed[name] = state
    assert set(listed) == set(KINDS)
    for name, state in listed.items():
        raised = core.panda_callback_kind_raised(KINDS[name].number)
        assert raised == (state.startswith(("work", "can be registered"))), name


def test_example_runs() -> None:
    code = example()
    assert len(code.splitlines()) <= 15
    done = subprocess.run(
        [sys.executable, "-"],
        input=code,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.fullmatch(r"Linux debian-x86_64 .* \((\d+) different blocks\)\n", done.stdout)
    assert found, done.stdout
    assert int(found[1]) > 1000


def test_environment_variables() -> None:
    files = [*(ROOT / "pandalite").rglob("*.py"), *(ROOT / "tools").rglob("*.py")]
    read = {
        name
        for file in files
        for name in re.findall(r'"(PANDALITE_[A-Z_]+|PANDA_LIB)"', file.read_text())
    }
    listed = {name.strip("`") for name, _ in rows("variable")}
    assert listed == read


def test_exceptions_and_times() -> None:
    from pandalite import errors, lifecycle, serial
    from pandalite.qcows import tiny

    text = (ROOT / "docs" / "errors.md").read_text()
    listed = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert sorted([*listed, "PandaError"]) == sorted(errors.__all__)
    for name in listed:
        (row,) = re.findall(rf"^\| `{name}` \| (.*?) \|", text, re.MULTILINE)
        bases = [base.__name__ for base in getattr(errors, name).__bases__]
        assert re.findall(r"`(\w+)`", row) == [base for base in bases if base != "PandaError"]
    first, first_after = lifecycle.CALLBACK_PATIENCE, lifecycle.CALLBACK_PATIENCE_INTERRUPTED
    last = lifecycle.CALLBACK_PATIENCE_LAST
    queue, queue_after = lifecycle.QUEUE_PATIENCE, lifecycle.QUEUE_PATIENCE_INTERRUPTED
    for said in (
        f"| {first:g} s; {first_after:g} s after Ctrl-C or an exception |",
        f"| the same callback, after that | {last:g} s |",
        f"| {queue:g} s; {queue_after:g} s after Ctrl-C or an exception. After half",
        f"at most\n{first_after:g} + {last:g} + {queue_after:g} s after Ctrl-C",
        f"by at most {first:g} + {last:g} + {queue:g} s after",
        f"`finish_serial_cmd()` | {serial.DEFAULT_TIMEOUT:g} s |",
        f"on first use | {tiny.BOOT_TIMEOUT:g} s |",
    ):
        assert said in text, said


#: Uses of macros that define a ``__wrap_`` function.
WRAPPING_MACROS = (
    r"^(?:PANDA_RR_VALUE\(\s*\w[\w ]*,|PANDA_RR_VOID\(|TOPOLOGY\(|NEW_REGION\("
    r"|QUEUE\(|FORWARD\([\w ]+\*?,"
    r"|LOAD\(\w+,|STORE\(\w+,)\s*(\w+),"
)


def test_wrapped_functions() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    listed: dict[str, str] = {}
    for names, file in re.findall(r"^\| (`.*?) \|.*\| `(csrc/[\w./]+)` \|$", text, re.MULTILINE):
        listed.update(dict.fromkeys(re.findall(r"`(\w+)`", names), file))
    wrapped = {
        name: str(file.relative_to(ROOT))
        for file in (ROOT / "csrc").rglob("*.c")
        for names in re.findall(rf"\b__wrap_(\w+)|{WRAPPING_MACROS}", file.read_text(), re.M)
        for name in names
        if name
    }
    assert listed == wrapped


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: file.name)
def test_links(document: Path) -> None:
    text = document.read_text()
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: file.name)
def test_named_files_exist(document: Path) -> None:
    # Paths in code style that begin with a directory of the checkout.
    places = r"`((?:csrc|pandalite|tools|tests|examples|docs|bench)/[\w./-]+)`"
    for name in re.findall(places, document.read_text()):
        made = name.startswith("pandalite/_lib")
        assert made or (ROOT / name).exists(), f"{document.name} names {name}"
