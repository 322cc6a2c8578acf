"""The workflows: well-formed, and of nothing but what runs here too."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ctools import ROOT

FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))

#: What a step may call besides make and our own tools.
PROGRAMS = {"apt-get", "git", "grep", "docker", "printf", "mkdir", "cp", "gh", "unzip"}
PROGRAMS |= {"for", "do", "done", "(cd"}


def load(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(file.read_text())
    return found


def steps(file: Path) -> list[dict[str, Any]]:
    return [step for job in load(file)["jobs"].values() for step in job["steps"]]


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_there_are_three() -> None:
    assert [file.name for file in FILES] == ["ci.yml", "nightly.yml", "wheels.yml"]


def test_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema"]
    done = subprocess.run(
        [*command, "vendor.github-workflows", *FILES], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_schema_finds_mistakes(tmp_path: Path) -> None:
    file = tmp_path / "ci.yml"
    text = FILES[0].read_text()
    file.write_text(text.replace("runs-on:", "runs-upon:"))
    assert file.read_text() != text
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema"]
    done = subprocess.run(
        [*command, "vendor.github-workflows", file], capture_output=True, timeout=120
    )
    assert done.returncode == 1


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.name)
def test_careful(file: Path) -> None:
    workflow = load(file)
    assert workflow["permissions"] == {"contents": "read"}
    assert "concurrency" in workflow
    for name, job in workflow["jobs"].items():
        assert job["timeout-minutes"] <= 120, name
        assert job["runs-on"] in ("ubuntu-24.04", "ubuntu-24.04-arm")
        needed = job.get("needs", [])
        for other in [needed] if isinstance(needed, str) else needed:
            assert other in workflow["jobs"]
        # Only what publishes may write.
        assert "permissions" not in job or name == "publish"
    text = file.read_text()
    for used in re.findall(r"uses: (.+)", text):
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", used), used
    for step in steps(file):
        if "checkout" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False
        # What an outsider can choose must not become part of a script.
        assert "${{" not in step.get("run", ""), step


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.name)
def test_calls_what_is_here(file: Path) -> None:
    targets = make_targets()
    for step in steps(file):
        script = step.get("run", "").replace("\\\n", " ")
        for name in re.findall(r"\btools/\w+\.py", script):
            assert (ROOT / name).is_file(), name
        for name in re.findall(r"/try/\w+/(\w+\.py)", script):
            assert (ROOT / "tools" / name).is_file(), name
        for line in filter(None, map(str.strip, script.splitlines())):
            program, *words = line.split()
            if program == "make":
                named = [w for w in words if not w.startswith(("$", "HOST="))]
                assert set(named) <= targets, line
            else:
                assert program in PROGRAMS or program == ".venv/bin/python", line
    for job in load(file)["jobs"].values():
        for target in job.get("strategy", {}).get("matrix", {}).get("target", []):
            assert set(target.split()) <= targets


def test_same_release_of_each_action() -> None:
    used: dict[str, set[str]] = {}
    for file in FILES:
        for name, rest in re.findall(r"uses: ([\w.-]+/[\w.-]+)@(.+)", file.read_text()):
            used.setdefault(name, set()).add(rest)
    assert {name for name, releases in used.items() if len(releases) > 1} == set()


def test_make_has_help_for_its_targets() -> None:
    text = (ROOT / "Makefile").read_text()
    helped = set(re.findall(r"^#.*?`?make ([a-z][\w-]*)", text, re.MULTILINE))
    helped |= set(re.findall(r"`make ([a-z][\w-]*)`", text))
    phony = set(re.search(r"^\.PHONY: (.+)$", text, re.MULTILINE)[1].split())  # type: ignore[index]
    assert phony <= make_targets()
    assert helped <= phony
    assert phony - helped == {"firmware", "venv", "packages", "test-packages"}
