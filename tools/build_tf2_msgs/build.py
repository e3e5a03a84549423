"""Generate, compile and install ``tf2_msgs`` into the virtual environment whose Python runs this file.

PyPI has rclpy and the common interfaces of ROS 2 Jazzy, but not tf2_msgs, without which nothing can speak on /tf.  It
is one message with one field, so it is generated here from its definition with Jazzy's own generators.  These come as
some fifty wheels and are needed once: they go to a temporary folder, and only the result is kept.

In a ROS installation tf2_msgs is there already: this file then does nothing, and COLCON_IGNORE keeps colcon away.
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
from pathlib import Path

# REP-2016: DDS endpoints match only if both sides have the same hash.  This is the one of ROS 2's own tf2_msgs.
TYPE_HASH = "RIHS01_e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087"
SOURCE = Path(__file__).resolve().parent

log = logging.getLogger("tf2_msgs")


class BuildError(Exception):
    """A step failed; the message holds its command and what it printed."""


def main() -> int:
    """Build unless the package is there already; the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    if is_usable():
        return 0
    if sys.prefix == sys.base_prefix:
        log.error("run this with the Python of a virtual environment; %s is not one", sys.executable)
        return 1
    prefix = Path(sys.prefix)
    try:
        with tempfile.TemporaryDirectory(prefix="tf2_msgs-", dir=prefix) as folder:
            build(Path(folder), prefix)
        check_type_hash(prefix)
    except BuildError as error:
        log.error("%s", error)
        return 1
    if not is_usable():
        log.error("installed in %s, but it cannot be imported", prefix)
        return 1
    return 0


def is_usable() -> bool:
    """Whether a fresh interpreter can import TFMessage and its compiled type support."""
    program = (
        "from tf2_msgs.msg import TFMessage\n"
        "TFMessage.__class__.__import_type_support__()\n"
        "assert TFMessage._TYPE_SUPPORT is not None"
    )
    environment = {k: v for k, v in os.environ.items() if k != "_ROS_WHEELS_BOOTSTRAP_COMPLETE"}
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True).returncode == 0


def build(folder: Path, prefix: Path) -> None:
    """Build in ``folder``, install into ``prefix``; `BuildError` if a step fails."""
    tools = folder / "tools"
    log.info("installing the generators in a temporary folder")
    run([sys.executable, "-m", "venv", "--without-pip", str(tools)])
    site = sysconfig.get_path("purelib", vars={"base": str(tools), "platbase": str(tools)})
    # The tools' Python also sees what is installed in the environment itself.
    (Path(site) / "environment.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = str(tools / "bin" / "python")
    install(python, SOURCE / "requirements.lock")

    log.info("generating and compiling the message")
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
    output = folder / "output"
    definitions = [f"-D{name}={value}" for name, value in options.items()]
    run([cmake, "-G", "Ninja", "-S", str(SOURCE), "-B", str(output), *definitions], environment)
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


def check_type_hash(prefix: Path) -> None:
    """`BuildError` unless the installed description has ROS 2's own type hash."""
    description = json.loads((prefix / "share/tf2_msgs/msg/TFMessage.json").read_text())
    hashes = {entry["type_name"]: entry["hash_string"] for entry in description["type_hashes"]}
    found = hashes.get("tf2_msgs/msg/TFMessage")
    if found != TYPE_HASH:
        raise BuildError(
            f"tf2_msgs/msg/TFMessage has type hash {found}; ROS 2's own, which it must match, is {TYPE_HASH}"
        )


def run(command: list[str], environment: dict[str, str] | None = None) -> None:
    """Run ``command``; `BuildError` with its output if it fails."""
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise BuildError(f"{' '.join(command)}\nfailed with exit code {done.returncode}:\n{done.stdout}")


if __name__ == "__main__":
    sys.exit(main())
