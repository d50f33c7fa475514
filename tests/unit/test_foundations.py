"""What the repository's own files say of each other must agree."""

import re
import shlex
import subprocess
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from training.cli import build_app

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = [
    Requirement(text) for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]
]
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = re.findall(r"^\.PHONY: ([\w-]+)$", MAKEFILE, re.MULTILINE)
# Written in pieces, so that this file does not name them either.
REGISTRY_HOSTS = (
    "py" + "pi.org", "python" + "hosted.org", "npm" + "js.org", "deb." + "debian.org",
    "download.py" + "torch.org", "cr" + "ates.io",
)  # fmt: skip


def locked():
    pins = [line.split("==") for line in (ROOT / "requirements.lock").read_text().splitlines()]
    return {canonicalize_name(name): version for name, version in pins}


def tracked_files():
    """Paths of all text files under version control."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def read(path):
    return path.read_text(errors="replace")


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda r: r.name)
def test_the_lock_holds_every_declared_package_in_a_version_that_is_allowed(requirement):
    version = locked()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(version)


def test_the_lock_is_exact_and_free_of_local_builds_and_addresses():
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line), line


def test_every_runtime_package_is_bounded_from_below():
    assert all(re.search(r"[>=]=", str(r.specifier)) for r in REQUIREMENTS)


def test_no_file_names_a_package_registry():
    named = [
        (path.relative_to(ROOT), host)
        for path in tracked_files()
        for host in REGISTRY_HOSTS
        if host in read(path)
    ]
    assert not named


def test_no_large_file_is_under_version_control():
    large = [path for path in tracked_files() if path.stat().st_size > 512 * 1024]
    assert not large


def test_every_make_target_has_a_line_of_help():
    helped = re.findall(r"^([\w-]+):.*## .+$", MAKEFILE, re.MULTILINE)
    assert sorted(helped) == sorted(TARGETS)


@pytest.mark.parametrize("name", [".ci/run", ".github/workflows/ci.yml", "README.md"])
def test_make_targets_that_are_named_exist(name):
    named = set(re.findall(r"(?:`|^|run: )make ([a-z][\w-]*)", read(ROOT / name), re.MULTILINE))
    assert named and named <= set(TARGETS)


def test_ci_runs_the_same_targets_here_and_there():
    for target in ("lint", "test", "demo", "load"):
        assert f"make {target}" in read(ROOT / ".ci/run")
        assert f"make {target}" in read(ROOT / ".github/workflows/ci.yml")


def test_every_declared_command_registers_itself():
    declared = PROJECT["entry-points"]["marquee.commands"]
    installed = {entry.name: entry.value for entry in entry_points(group="marquee.commands")}
    assert installed == declared
    names = set(typer.main.get_command(build_app()).commands)
    assert {"data", "prepare", "train", "evaluate", "publish", "serve", "bench", "demo"} <= names


def shell_commands(text):
    """`marquee ...` lines of fenced code blocks, continuation lines joined."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    for block in (block for kind, block in blocks if kind in ("", "sh", "bash", "console")):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words[:1] == ["marquee"]:
                yield words[1:]


def documented_commands():
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for words in shell_commands(read(path)):
            yield pytest.param(words, id=f"{path.name}: {' '.join(words)}")


@pytest.mark.parametrize("words", list(documented_commands()))
def test_a_command_in_the_documents_exists_with_the_options_it_is_given(words):
    command = typer.main.get_command(build_app())
    while words and words[0] in getattr(command, "commands", {}):  # Typer's groups are its own
        command, words = command.commands[words[0]], words[1:]
    assert not hasattr(command, "commands"), f"no sub-command {words[:1]}"
    known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
    assert {word.split("=")[0] for word in words if word.startswith("-")} <= known
