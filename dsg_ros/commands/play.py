"""``python -m dsg_ros play``: publish a recorded bag."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from typing_extensions import Doc

from dsg_ros.errors import UserError

if TYPE_CHECKING:
    from dsg_ros.ros.player import Report


@dataclass(frozen=True)
class Options:
    """Publish a bag (rosbag2 or ROS 1) on its topics, with /clock, at a multiple of the recorded pace.

    Messages go out byte for byte with the quality of service they were recorded with.
    """

    bag: Annotated[tyro.conf.Positional[Path], Doc("The bag: a rosbag2 folder, .mcap, .db3 or .bag file")]
    rate: Annotated[float, Doc("How many times faster than recorded")] = 1.0
    wait: Annotated[float, Doc("Seconds to wait for a subscriber of each sensor topic before the first message")] = 60.0
    loop: Annotated[bool, Doc("Begin again at the end, until interrupted; /clock jumps back then")] = False
    json: Annotated[bool, Doc("Print one JSON object as the last line of stdout")] = False


def main(options: Options) -> int:
    """Play; 0 when everything was sent, 130 when interrupted."""
    if not 0.0 < options.rate < float("inf"):
        raise UserError(f"--rate {options.rate:g}: a positive factor is needed")
    if not options.bag.exists():
        raise UserError(f"{options.bag}: there is no such bag")
    from dsg_ros.ros.player import play

    report = play(options.bag, options.rate, options.wait, options.loop)
    _tell(options, report)
    return 130 if report.interrupted else 0


def _tell(options: Options, report: Report) -> None:
    if options.json:
        print(
            json.dumps(
                {
                    "sent": dict(report.sent),
                    "skipped": dict(report.skipped),
                    "unacknowledged": dict(report.unacknowledged),
                    "clock": report.clocks,
                    "seconds": round(report.seconds, 3),
                    "recorded_seconds": round(report.recorded_seconds, 3),
                    "interrupted": report.interrupted,
                    "damage": report.damage,
                }
            ),
            flush=True,
        )
        return
    for topic, count in sorted(report.sent.items()):
        print(f"{count:8d}  {topic}")
    print(f"{report.recorded_seconds:.1f} s of recording in {report.seconds:.1f} s", file=sys.stderr)
