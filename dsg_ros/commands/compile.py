"""``python -m dsg_ros compile``: as part of an installation, what a first start would spend minutes on."""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typing_extensions import Doc

from dsg_ros.errors import UserError
from dsg_ros.io.atomic import check_destination
from dsg_ros.processes import Failure, Process
from dsg_ros.progress import progress

log = logging.getLogger(__name__)

LONGEST = 1200.0
"""Seconds after which a step is given up."""

STEPS: tuple[tuple[str, str], ...] = (
    ("simulated drive of a planar robot", "simulate {place}/plane --world office --drive.metres 30"),
    ("map of a planar robot", "run {place}/plane --out {place}/plane.out"),
    ("localisation of a planar robot", "run {place}/plane --map {place}/plane.out/map --out {place}/plane.found"),
    ("simulated drive of a robot with a 3D lidar", "simulate {place}/space --drive.metres 12"),
    ("map with a 3D lidar", "run {place}/space --out {place}/space.out"),
    ("localisation with a 3D lidar", "run {place}/space --map {place}/space.out/map --out {place}/space.found"),
    ("tutorial", "hero --steps 1"),
)
"""What is done once, in the folder ``place``: name and command line.  All is compiled then that the node needs too."""


@dataclass(frozen=True)
class Options:
    """Compile for this machine what the node and the commands use, so that their first start takes seconds.

    A part of an installation, or of a robot's image: whoever starts anything of the package with an empty cache takes
    over what lies in the environment's share/dsg_ros/compiled. Everything is done once, on simulated drives.
    """

    into: Annotated[Path | None, Doc("Folder for what is compiled; default: the cache of who runs this")] = None
    json: Annotated[bool, Doc("Print one JSON object as the last line of stdout")] = False


def main(options: Options) -> int:
    """Do every step; 0, or 1 where one of them failed: what it needs is compiled when it is needed."""
    from dsg_ros.core.compilation import BUILT_VARIABLE, CACHE_VARIABLE, cache_folder, seal

    folder = options.into if options.into is not None else cache_folder()
    if folder is None:
        raise UserError(f"{CACHE_VARIABLE} is set but empty: nothing is kept; name a folder with --into")
    check_destination(folder)
    environment = {CACHE_VARIABLE: str(folder.absolute()), BUILT_VARIABLE: ""}
    began = time.perf_counter()
    failed = compiled(STEPS, environment)
    seconds = time.perf_counter() - began
    if folder.exists():
        seal(folder)
    files = sum(path.is_file() for path in folder.rglob("*"))
    log.info("%d files in %s after %.0f s", files, folder, seconds)
    if options.json:
        print(json.dumps({"folder": str(folder), "files": files, "seconds": seconds, "failed": failed}))
    return 1 if failed else 0


def compiled(steps: Sequence[tuple[str, str]], environment: dict[str, str]) -> list[str]:
    """Run each of ``steps`` in a temporary folder under ``environment``; the names of those that failed."""
    failed = []
    with tempfile.TemporaryDirectory() as place, progress("compiling", len(steps)) as advance:
        for number, (name, line) in enumerate(steps, 1):
            log.info("compiling, %d of %d: %s", number, len(steps), name)
            arguments = ["--quiet", *(word.format(place=place) for word in line.split())]
            with Process(name, arguments, Path(place, f"{number}.log"), environment) as process:
                try:
                    code = process.wait(LONGEST)
                    reason = "" if code == 0 else f"it ended with code {code}\n{process.tail()}"
                except Failure as failure:
                    reason = str(failure)
            if reason:
                log.error("%s: %s", name, reason)
                failed.append(name)
            advance(number, name)
    return failed
