"""What README.md and the pages of docs/ say about the package is what the package is."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import setuptools  # noqa: F401 -- makes the `distutils` below importable on Python 3.12 and later

from distutils.core import run_setup  # isort: skip
from documents import PAGES, commands, flaw

from dsg_ros.cli import COMMANDS

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
UBUNTU = {
    "jinja2": "3.1.2",
    "matplotlib": "3.6.3",
    "numpy": "1.26.4",
    "pillow": "10.2.0",
    "pyyaml": "6.0.1",
    "rich": "13.7.1",
    "scipy": "1.11.4",
    "typing_extensions": "4.10.0",
}
"""The libraries among package.xml's keys, as Ubuntu 24.04 has them: what rosdep installs for Jazzy."""
BROUGHT = {"backports.zstd", "lz4"}
"""By rosbags, on every Python that needs them."""


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def named_and_bound(requirement: str) -> tuple[str, str]:
    """Name in lower case and lower bound ("" without one) of an entry of install_requires or a word for pip."""
    name, _, bound = requirement.partition(";")[0].strip().partition(">=")
    return name.lower(), bound


def test_pip_line_covers_what_the_distribution_lacks_or_has_too_old(monkeypatch):
    """A library that apt has in an older release is named with its bound: without one, pip takes it for installed."""
    monkeypatch.chdir(ROOT)
    required = dict(map(named_and_bound, run_setup("setup.py", stop_after="init").install_requires))
    (line,) = re.findall(r"^pip install ((?:.*\\\n)*.*)$", README.read_text(encoding="utf-8"), re.MULTILINE)
    flag, constraints, *words = shlex.split(line.replace("\\\n", " "))
    assert (flag, Path(constraints).name) == ("-c", "constraints-jazzy.txt")
    assert (ROOT / Path(constraints).name).is_file()
    wanted = required.keys() - UBUNTU.keys() - BROUGHT
    wanted |= {name for name, has in UBUNTU.items() if numbers(has) < numbers(required[name])}
    told = dict(map(named_and_bound, words))
    assert set(told) == wanted
    assert {name: bound for name, bound in told.items() if bound} == {
        name: required[name] for name in wanted if name in UBUNTU
    }


def test_parameter_table_is_current():
    spec = importlib.util.spec_from_file_location("parameter_table", ROOT / "docs" / "parameter_table.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    text = README.read_text(encoding="utf-8")
    assert tool.updated(text) == text, "run: python docs/parameter_table.py"


def test_every_command_named_exists_and_every_command_is_named():
    named = set(re.findall(r"python -m dsg_ros (\w+)", README.read_text(encoding="utf-8")))
    assert named == set(COMMANDS)


@pytest.mark.parametrize("page", PAGES)
def test_commands_would_be_taken(page):
    """Options, parameters and launch arguments by their names; files need not be there."""
    found = {shlex.join(words): why for words in commands(page) if (why := flaw(words))}
    assert not found, "\n".join(f"{command}\n    {why}" for command, why in found.items())


def test_a_wrong_command_would_be_noticed():
    right = "python -m dsg_ros run LOG --out out --set keyframes.distance=0.5"
    assert flaw(shlex.split(right)) is None
    for wrong in (
        "python -m dsg_ros fly",
        "python -m dsg_ros run LOG --output out",
        "python -m dsg_ros run LOG",
        "python -m dsg_ros node --ros-args -p keyframes.distanc:=1.0",
        "ros2 launch dsg_ros hero.launch.py bags:=BAG",
        "ros2 run dsg_ros hero --ros-args",
        "make tea",
    ):
        assert flaw(shlex.split(wrong)), wrong


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures_lead_somewhere(page):
    path = ROOT / page
    targets = re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8"))
    local = [target for target in targets if "://" not in target]
    assert local or page != "README.md"
    for target in local:
        assert (path.parent / target).exists(), f"{page} links to {target}, which is not there"


def test_the_picture_is_small():
    assert (ROOT / "docs" / "images" / "killian.png").stat().st_size < 300_000
