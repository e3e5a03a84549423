"""What the pages for users name: commands, and whether they would be taken."""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import tyro

from dsg_ros import config
from dsg_ros.cli import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")))
PYTHON = re.compile(r"(\.venv/bin/)?python3?$")


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def commands(page: str) -> Iterator[list[str]]:
    """The words of every command of this package on a page, in its code blocks and between backticks."""
    text = read(page)
    blocks = "\n".join(re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    lines = blocks.replace("\\\n", " ").splitlines()
    lines += re.findall(r"`((?:python -m|ros2|make) [^`]*)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    for line in lines:
        for simple in re.split(r"\s(?:&&|\|\||\||;)\s", line):
            words = shlex.split(simple, comments=True)
            if words:
                yield words


def flaw(words: list[str]) -> str | None:
    """Why a command would not be taken, or None; None too where it is none of this package's."""
    match words:
        case [python, "-m", "dsg_ros", command, *arguments] if PYTHON.search(python):
            return _refused(command, arguments)
        case ["ros2", "launch", "dsg_ros", "hero.launch.py", *arguments]:
            launch = (ROOT / "launch" / "hero.launch.py").read_text(encoding="utf-8")
            known = re.findall(r'^    "(\w+)": \(', launch, re.MULTILINE)
            return _unknown([word.partition(":=")[0] for word in arguments], known)
        case ["ros2", "run", "dsg_ros", program, *arguments]:
            scripts = re.findall(r'"(\w+) = dsg_ros', (ROOT / "setup.py").read_text(encoding="utf-8"))
            return _unknown([program], scripts) or _unknown(_parameters(arguments), _settings())
        case ["make", *targets]:
            known = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
            return _unknown(targets, known)
    return None


def _refused(command: str, arguments: list[str]) -> str | None:
    if command not in COMMANDS:
        return f"no command {command!r}"
    if not arguments:
        return None  # in a sentence
    module = importlib.import_module(f"dsg_ros.commands.{command}")
    if not hasattr(module, "Options"):
        known = _settings() if command == "node" else {s.name for s in config.settings(config.Simulation())}
        return _unknown(_parameters(arguments), known)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            tyro.cli(module.Options, args=arguments)
    except SystemExit as end:
        return None if end.code == 0 else said.getvalue()
    return None


def _settings() -> set[str]:
    return {setting.name for setting in config.settings(config.Node())} | {"use_sim_time"}


def _parameters(arguments: list[str]) -> list[str]:
    """Names that are set by ``-p name:=value``."""
    return [value.partition(":=")[0] for flag, value in itertools.pairwise(arguments) if flag == "-p"]


def _unknown(names: list[str], known: object) -> str | None:
    missing = [name for name in names if name not in known]  # type: ignore[operator]
    return f"not known: {', '.join(missing)}" if missing else None
