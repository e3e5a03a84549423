"""What is saved, and where: by `~/save`, and at the end of a run."""

from __future__ import annotations

from dsg_ros import config as cfg
from dsg_ros.worker import messages


def command(config: cfg.Node, refine: bool = False) -> messages.Save | None:
    """What there is to be saved, None if nothing; a map that is only localised in is not written again."""
    map_folder = "" if config.localisation else config.map_folder
    folder = config.output_folder
    return messages.Save(folder, refine, map_folder) if folder or map_folder else None


def folders(command: messages.Save) -> str:
    """Where, for people."""
    return " and ".join(filter(None, (command.folder, command.map_folder)))
