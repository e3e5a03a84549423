"""Generate, compile and install ``tf2_msgs``, ``map_msgs`` and ``bond`` into the virtual environment of this Python.

PyPI has rclpy and the common interfaces of ROS 2 Jazzy, but not tf2_msgs, without which nothing can speak on /tf, nor
map_msgs, which updates of maps are told in, nor bond, by which Nav2's lifecycle manager knows that a node lives.  Of
each one message is needed, so these are generated here from their definitions with Jazzy's own generators.  These come
as some fifty wheels and are needed once: they go to a temporary folder, and only the result is kept.

In a ROS installation all are there already: this file then does nothing, and COLCON_IGNORE keeps colcon away.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).resolve().parent

log = logging.getLogger("messages")


@dataclass(frozen=True)
class Package:
    """A package with the one message that is built of it.

    DDS endpoints match only if both sides have the same type hash (REP-2016): it is the one of ROS 2's own message.
    """

    name: str
    message: str
    type_hash: str

    @property
    def type_name(self) -> str:
        """As REP-2016 writes it."""
        return f"{self.name}/msg/{self.message}"


PACKAGES = (
    Package("tf2_msgs", "TFMessage", "RIHS01_e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087"),
    Package(
        "map_msgs", "OccupancyGridUpdate", "RIHS01_c4095b0be2e4363f8978a1570e0293ee093436f1e1c61d99b48502ac317025e8"
    ),
    Package("bond", "Status", "RIHS01_87eaccffa254ffffadc0b61600452e8251740f06c25659a2dbda4927fdb1f70a"),
)


class BuildError(Exception):
    """A step failed; the message holds its command and what it printed."""


def main() -> int:
    """Build the packages that are not there already; the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    missing = [package for package in PACKAGES if not is_usable(package)]
    if not missing:
        return 0
    if sys.prefix == sys.base_prefix:
        log.error("run this with the Python of a virtual environment; %s is not one", sys.executable)
        return 1
    prefix = Path(sys.prefix)
    try:
        with tempfile.TemporaryDirectory(prefix="messages-", dir=prefix) as folder:
            build(missing, Path(folder), prefix)
        for package in missing:
            check_type_hash(package, prefix)
    except BuildError as error:
        log.error("%s", error)
        return 1
    for package in missing:
        if not is_usable(package):
            log.error("%s is installed in %s, but it cannot be imported", package.name, prefix)
            return 1
    return 0


def is_usable(package: Package) -> bool:
    """Whether a fresh interpreter can import the message and its compiled type support."""
    program = (
        f"from {package.name}.msg import {package.message} as Message\n"
        "Message.__class__.__import_type_support__()\n"
        "assert Message._TYPE_SUPPORT is not None"
    )
    environment = {k: v for k, v in os.environ.items() if k != "_ROS_WHEELS_BOOTSTRAP_COMPLETE"}
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True).returncode == 0


def build(packages: list[Package], folder: Path, prefix: Path) -> None:
    """Build ``packages`` in ``folder``, install into ``prefix``; `BuildError` if a step fails."""
    tools = folder / "tools"
    log.info("installing the generators in a temporary folder")
    run([sys.executable, "-m", "venv", "--without-pip", str(tools)])
    site = sysconfig.get_path("purelib", vars={"base": str(tools), "platbase": str(tools)})
    # The tools' Python also sees what is installed in the environment itself.
    (Path(site) / "environment.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = str(tools / "bin" / "python")
    install(python, SOURCE / "requirements.lock")

    environment = os.environ | {
        "PATH": os.pathsep.join([str(tools / "bin"), os.environ["PATH"]]),
        "AMENT_PREFIX_PATH": os.pathsep.join([str(tools), str(prefix)]),
        "CMAKE_PREFIX_PATH": os.pathsep.join([str(tools), str(prefix)]),
    }
    environment.pop("PYTHONPATH", None)
    cmake = str(tools / "bin" / "cmake")
    options = {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_INSTALL_PREFIX": str(prefix),
        "BUILD_TESTING": "OFF",
        "Python3_EXECUTABLE": python,
        "PYTHON_INSTALL_DIR": os.path.relpath(sysconfig.get_path("purelib"), prefix),
    }
    definitions = [f"-D{name}={value}" for name, value in options.items()]
    for package in packages:
        log.info("generating and compiling %s", package.type_name)
        source, output = SOURCE / "packages" / package.name, folder / package.name
        run([cmake, "-G", "Ninja", "-S", str(source), "-B", str(output), *definitions], environment)
        run([cmake, "--build", str(output), "--target", "install"], environment)


def install(python: str, requirements: Path) -> None:
    """Install ``requirements``, without their dependencies, for the interpreter ``python``; with uv if possible."""
    if uv := shutil.which("uv", path=str(Path(sys.executable).parent)):
        try:
            run([uv, "pip", "install", "--quiet", "--no-deps", "--python", python, "-r", str(requirements)])
            return
        except BuildError as error:
            log.warning("%s\ntrying pip instead", error)
    run([sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "-r", str(requirements)])


def check_type_hash(package: Package, prefix: Path) -> None:
    """`BuildError` unless the installed description has ROS 2's own type hash."""
    description = json.loads((prefix / f"share/{package.type_name}.json").read_text())
    hashes = {entry["type_name"]: entry["hash_string"] for entry in description["type_hashes"]}
    found = hashes.get(package.type_name)
    if found != package.type_hash:
        raise BuildError(
            f"{package.type_name} has type hash {found}; ROS 2's own, which it must match, is {package.type_hash}"
        )


def run(command: list[str], environment: dict[str, str] | None = None) -> None:
    """Run ``command``; `BuildError` with its output if it fails."""
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise BuildError(f"{' '.join(command)}\nfailed with exit code {done.returncode}:\n{done.stdout}")


if __name__ == "__main__":
    sys.exit(main())
