"""What a worker begins with: a pipeline that maps or one that localises, a checkpoint or a new map."""

from __future__ import annotations

from pathlib import Path

from dsg_ros import config as cfg
from dsg_ros.errors import UserError
from dsg_ros.io.checkpoint import has_checkpoint, read_checkpoint
from dsg_ros.io.learned import read_learned
from dsg_ros.io.map_folder import read_map
from dsg_ros.throttle import Say
from dsg_ros.worker import messages
from dsg_ros.worker.checkpoints import compared


def pipeline(config: cfg.Node, mapping: str) -> str:
    """What the worker is to run, as module:callable: ``mapping``, or what localises.

    `UserError` where the map to localise in is not whole, or learned parameters to start from cannot be read.
    """
    if not config.localisation:
        if config.learning.start:
            read_learned(Path(config.learning.start))
        return mapping
    if not config.map_folder:
        raise UserError("localisation is on and the parameter map_folder is empty: no map to localise in")
    read_map(Path(config.map_folder))
    return messages.LOCALISATION


def resumed(config: cfg.Node, say: Say) -> str:
    """The map folder to go on from, empty for a new map.

    `UserError` where the parameters contradict each other, or the checkpoint is not whole and for them.
    """
    if not config.resume:
        return ""
    if config.localisation:
        raise UserError("resume and localisation are both on: a finished map is localised in, and not gone on with")
    if not config.map_folder:
        raise UserError("resume is on and the parameter map_folder is empty: nothing to go on from")
    if not has_checkpoint(Path(config.map_folder)):
        say("info", f"there is no checkpoint in {config.map_folder} yet: a new map begins")
        return ""
    _, about = read_checkpoint(Path(config.map_folder), compared(config))
    say("info", f"going on from the checkpoint in {config.map_folder}: {about['keyframes']} keyframes")
    return config.map_folder
