"""The command line: ``python -m dsg_ros [--verbose | --quiet] COMMAND [ARGUMENTS]``.

A command ``x`` is the module ``dsg_ros/commands/x.py``, imported only when asked for, so that the list of commands and
a typing error cost no import of JAX or rclpy.  Such a module has either

* a frozen dataclass ``Options`` (its docstring is the help text) and ``main(options: Options) -> int``, or
* no ``Options`` and ``main(arguments: list[str]) -> int``: the arguments reach it untouched (rclpy parses its own).

Exit codes: what ``main`` returns; 2 for a usage error or a `UserError`; 130 after Ctrl-C; 141 when the reader of stdout
left.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from dsg_ros import __version__
from dsg_ros.errors import UserError
from dsg_ros.interruption import INTERRUPTED, interruptible

COMMANDS = {
    "hero": "the tutorial: 6 poses, 6 voxels, odometry and observations learned through the solver",
    "demo": "a real robot's run through converter, player and node; leaves figures and a report",
    "run": "map and learn from a recorded run, offline, as fast as it goes",
    "relocalise": "how often the robot is found in a map, on a recorded run",
    "simulate": "a robot with a laser in a simulated world, as a ROS 2 bag with exact truth",
    "convert": "turn a CARMEN log, a g2o log or a ROS 1 bag into a ROS 2 bag",
    "learn": "one calibration from several recorded runs, and whether they agree on it",
    "calibrate": "what a recorded drive says of a robot's calibration, with standard deviations",
    "sensitivity": "how far a change of each parameter moves the poses of a run",
    "optimize": "the optimum of a pose graph file, g2o or TORO",
    "compile": "for this machine what the node and the commands use, as part of an installation",
    "play": "publish a ROS 2 bag on its topics, with /clock",
    "simulator": "the ROS 2 node of a simulated robot, or of the tutorial; all further arguments go to rclpy",
    "node": "the ROS 2 node; all further arguments go to rclpy",
}

HOW_TO_INSTALL = "run `make venv` and use .venv/bin/python, or with ROS 2 source its setup file (README)"

BROKEN_PIPE = 141  # 128 + SIGPIPE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command named in ``arguments`` (default: the process's own) and return the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # Everything after the command's name is the command's own: argparse sees only what stands before it.
    split = next((i for i, word in enumerate(arguments) if not word.startswith("-")), len(arguments))
    parser = _parser()
    options = parser.parse_args(arguments[:split])
    if split == len(arguments):
        parser.error("which command? " + ", ".join(COMMANDS))
    name, rest = arguments[split], arguments[split + 1 :]
    if name not in COMMANDS:
        parser.error(f"no command {name!r}; there are {', '.join(COMMANDS)}")
    _log_to_stderr(options.verbose, options.quiet)
    try:
        with interruptible():
            return _run(name, rest)
    except UserError as error:
        print(f"{parser.prog} {name}: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "dsg_ros":
            raise
        text = f"{sys.executable} has no package {error.name!r}; {HOW_TO_INSTALL}"
        print(f"{parser.prog} {name}: {text}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{parser.prog} {name}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (`| head`).  Python flushes stdout once more at exit: give it a sink.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE


def _run(name: str, arguments: list[str]) -> int:
    module = importlib.import_module(f"dsg_ros.commands.{name}")
    prog = f"python -m dsg_ros {name}"
    if not hasattr(module, "Options"):
        if arguments in (["-h"], ["--help"]):
            print(_plain_help(prog, module))
            return 0
        code = module.main(arguments)
    else:
        import tyro

        code = module.main(tyro.cli(module.Options, prog=prog, args=arguments))
    sys.stdout.flush()  # here, where a broken pipe is still caught
    return int(code)


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    listing = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m dsg_ros",
        usage="%(prog)s [--verbose | --quiet] COMMAND [ARGUMENTS]",
        description="Online hybrid SLAM that learns its own calibration.",
        epilog=f"commands:\n{listing}\n\n%(prog)s COMMAND --help explains a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"dsg_ros {__version__}")
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("-v", "--verbose", action="store_true", help="log debugging details too")
    loudness.add_argument("-q", "--quiet", action="store_true", help="log warnings and errors only")
    return parser


def _plain_help(prog: str, module: ModuleType) -> str:
    return f"usage: {prog} [ARGUMENTS]\n\n{(module.__doc__ or '').strip()}"


def _log_to_stderr(verbose: bool, quiet: bool) -> None:
    level = logging.WARNING if quiet else logging.INFO
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    # Debug output is ours only: JAX and matplotlib write pages of it.
    logging.getLogger("dsg_ros").setLevel(logging.DEBUG if verbose else level)
