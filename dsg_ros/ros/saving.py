"""What is saved, and where: by `~/save`, and at the end of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Literal

from dsg_ros import config as cfg
from dsg_ros.throttle import Say
from dsg_ros.worker import messages

NO_COUNTS: Mapping[str, int] = {}


def command(config: cfg.Node, refine: bool = False, counts: Mapping[str, int] = NO_COUNTS) -> messages.Save | None:
    """What there is to be saved, None if nothing; a map that is only localised in is not written again.

    ``counts`` are the node's own, for the report beside the pipeline's.
    """
    map_folder = "" if config.localisation else config.map_folder
    folder = config.output_folder
    return messages.Save(folder, refine, map_folder, dict(counts)) if folder or map_folder else None


def folders(command: messages.Save) -> str:
    """Where, for people."""
    return " and ".join(filter(None, (command.folder, command.map_folder)))


def last(
    command: messages.Save, request: Callable[[messages.Command], Future[Any]], say: Say
) -> Literal["saved", "save failed"]:
    """Save when all is over, however long it takes; what came of it is logged, and answered."""
    say("info", f"final refinement, then saving to {folders(command)}")
    try:
        request(command).result()
    except Exception as error:  # noqa: BLE001 - a failed save must not keep the process from ending in order
        say("error", f"not saved: {error}")
        return "save failed"
    say("info", f"saved to {folders(command)}")
    return "saved"
