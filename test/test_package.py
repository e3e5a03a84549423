"""What is installed, and what the package says of itself."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from xml.etree import ElementTree

import pytest
import setuptools  # noqa: F401 -- makes the `distutils` below importable on Python 3.12 and later

from distutils.core import run_setup  # isort: skip
from distutils.dist import Distribution  # isort: skip
from imports import imported, modules

import dsg_ros

ROOT = Path(__file__).resolve().parents[1]
MANIFEST = ElementTree.parse(ROOT / "package.xml").getroot()

LOCKS = [*(f"requirements{kind}.lock" for kind in ("", "-dev", "-oldest")), "tools/build_messages/requirements.lock"]
# PyPI's name where it differs from the module's.
DISTRIBUTIONS = {"yaml": "PyYAML", "PIL": "pillow", "backports": "backports.zstd"}
# In the standard library from Python 3.14 on.
NEWER = {"compression"}
# The Python modules of ROS packages of another name.
ROS_PACKAGES = {"tf2_ros": "tf2_ros_py"}


@pytest.fixture(scope="module")
def distribution() -> Distribution:
    """setup.py, executed up to but not including its command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return run_setup("setup.py", stop_after="init")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of the files that setup.py installs, built in a copy of the project without what git ignores."""
    source = tmp_path_factory.mktemp("source")
    for name in tracked():
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    command = [sys.executable, "setup.py", "-q", "build", "--build-lib", "result"]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {str(path.relative_to(source / "result")) for path in (source / "result").rglob("*") if path.is_file()}


def tracked() -> list[str]:
    """The project's files, without build results; the test is skipped outside a git checkout."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"not a git checkout: {done.stderr.strip()}")
    return [name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


def library(requirement: str) -> str:
    """The name in an entry of install_requires."""
    return re.split(r"[^\w.-]", requirement)[0]


def depends(*kinds: str) -> set[str]:
    return {element.text or "" for kind in kinds for element in MANIFEST.findall(kind)}


def test_name_version_and_licence_agree(distribution: Distribution) -> None:
    assert MANIFEST.findtext("name") == distribution.get_name() == "dsg_ros"
    assert MANIFEST.findtext("version") == distribution.get_version() == dsg_ros.__version__
    assert MANIFEST.findtext("description") == f"{distribution.get_description()}."
    assert MANIFEST.findtext("license") == distribution.get_license()
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def test_console_scripts_resolve(distribution: Distribution) -> None:
    scripts = dict(re.split(r"\s*=\s*", entry) for entry in distribution.entry_points["console_scripts"])
    assert {"dsg_ros", "hero_node", "hero_simulator"} <= set(scripts)
    for target in scripts.values():
        module, _, function = target.partition(":")
        assert callable(getattr(import_module(module), function))


def test_data_files_are_there_and_complete(distribution: Distribution) -> None:
    listed = {name for _, names in distribution.data_files for name in names}
    assert [name for name in listed if not (ROOT / name).is_file()] == []
    wanted = {name for name in tracked() if name.startswith(("launch/", "config/"))}
    assert wanted <= listed
    marker = ("share/ament_index/resource_index/packages", ["resource/dsg_ros"])
    assert marker in distribution.data_files


def test_exactly_the_files_of_the_package_are_installed(built: set[str]) -> None:
    assert built == {name for name in tracked() if name.startswith("dsg_ros/")}


def test_every_import_is_declared(distribution: Distribution) -> None:
    """Libraries in setup.py, ROS packages in package.xml: both lists lack nothing that the code imports."""
    found = modules(ROOT / "dsg_ros")
    names = {target.partition(".")[0] for name, path in found.items() for _, target in imported(name, path, set(found))}
    names -= sys.stdlib_module_names | NEWER | {"dsg_ros"}
    extras = [entry for entries in distribution.extras_require.values() for entry in entries]
    normal = {library(entry).lower() for entry in (*distribution.install_requires, *extras)}
    libraries = {name for name in names if DISTRIBUTIONS.get(name, name).lower() in normal}
    ros = {name for name in names if ROS_PACKAGES.get(name, name) in depends("depend", "exec_depend")}
    assert sorted(names - libraries - ros) == []


def test_every_declared_library_is_used(distribution: Distribution) -> None:
    used = "\n".join(path.read_text() for path in modules(ROOT / "dsg_ros").values())
    modules_of = {value.lower(): key for key, value in DISTRIBUTIONS.items()}
    extras = [entry for entries in distribution.extras_require.values() for entry in entries]
    for entry in (*distribution.install_requires, *extras):
        name = library(entry)
        assert re.search(rf"\b(import|from) {modules_of.get(name.lower(), name)}\b|\"{name}\"", used), entry


def test_lock_pins_every_requirement(distribution: Distribution) -> None:
    pins = (ROOT / "requirements.lock").read_text()
    for entry in distribution.install_requires:
        name = re.sub(r"[_.]", "-", library(entry).lower())
        assert re.search(rf"^{name}==\S+( ;.*)?$", pins, re.MULTILINE), f"{name}: run `make lock`"


@pytest.mark.parametrize(
    "name",
    [
        "requirements.lock",
        "requirements-dev.lock",
        "requirements-oldest.lock",
        "tools/build_messages/requirements.lock",
    ],
)
def test_locks_are_exact_and_name_no_index(name: str) -> None:
    lines = [line for line in (ROOT / name).read_text().splitlines() if line]
    assert len(lines) > 10
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[\w.+]+( ; [\w .'<>=!*]+)?", line)] == []


def test_oldest_lock_is_the_lower_bounds(distribution: Distribution) -> None:
    pins = (ROOT / "requirements-oldest.lock").read_text()
    for name in ("jax", "numpy"):
        bound = next(entry for entry in distribution.install_requires if entry.startswith(f"{name}>="))
        assert re.search(rf"^{bound.replace('>=', '==')}(\.0)?( ;.*)?$", pins, re.MULTILINE)


def test_colcon_leaves_the_substitute_alone() -> None:
    assert (ROOT / "tools/build_messages/COLCON_IGNORE").is_file()
