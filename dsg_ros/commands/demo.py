"""``python -m dsg_ros demo``: a real robot's run through converter, player and node, over real DDS."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import statistics
import sys
import time
import webbrowser
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from typing_extensions import Doc

from dsg_ros.commands import convert
from dsg_ros.errors import UserError
from dsg_ros.interruption import INTERRUPTED
from dsg_ros.io.atomic import check_destination
from dsg_ros.io.g2o import write_reference
from dsg_ros.io.logs import open_log
from dsg_ros.processes import Failure, Follower, Process, free_domain, isolated, node_arguments
from dsg_ros.progress import Advance, progress
from dsg_ros.report.save import FILES, amend, load_report

log = logging.getLogger(__name__)

START_UP = 240.0
"""Longest wait [s] for the node to be ready: the first time on a machine it compiles everything."""
PLAYING = 7200.0
"""Longest wait [s] for the player; at --rate 1 the recording lasts two hours and eight minutes."""
DRAIN = 900.0
"""Longest wait [s] for the scans still queued when the player is done."""
STALLED = 30.0
"""Seconds without a scan received or processed after which no more are expected."""
SAVING = 240.0
"""Longest wait [s] for the final refinement and the files."""
DEPTH = 100
"""Depth of the reliable scan subscription: what may arrive while the node is busy for a moment."""
QUEUE = 10000
"""Scans that may wait for the pipeline: all of them, so that a slow machine takes longer and maps the same."""
BAG = "killian"
OWN_FILES = FILES | {"reference.tum", "status.json", "node.log", "player.log"}
"""What a demo leaves in its folder, beside the bag."""


@dataclass(frozen=True)
class Options:
    """Map the MIT Killian Court with the real node: convert, play over DDS, follow, save and compare.

    3873 laser scans of a robot's two-hour drive, as shipped in the PyPI package rtb-data, played faster than it was.
    """

    out: Annotated[Path, Doc("Folder for the results: new, empty, or of a former demo")] = Path("out/demo")
    rate: Annotated[float, Doc("How many times faster than real time the run is played")] = 40.0
    limit: Annotated[int, Doc("Use only this many scans; 0 takes all")] = 0
    view: Annotated[
        Literal["auto", "web", "none"],
        Doc("Watch it in a browser; auto: where there is a display, web: the page is served even where there is none"),
    ] = "auto"
    json: Annotated[bool, Doc("Print one JSON object as the last line of stdout")] = False


def main(options: Options) -> int:
    """Run the demo; 0 when everything arrived, was mapped and saved, 1 with the reason otherwise."""
    if not options.rate > 0.0:
        raise UserError(f"--rate {options.rate}: a positive factor is needed")
    if options.limit < 0:
        raise UserError(f"--limit {options.limit}: expected 0 (all) or a positive number")
    archive = find_run()
    _prepare(options.out)
    began = time.monotonic()
    bag = _convert(archive, options)
    write_reference(archive, options.out / "reference.tum")
    try:
        sent, status = _play_through_node(bag, options)
    except Failure as failure:
        print(f"demo: {failure}", file=sys.stderr)
        return 1
    report = amend(options.out, options.out / "reference.tum", archive.name, _metrics(status), _counts(sent, status))
    problems = _problems(sent, status, report)
    _tell(options, status, report, problems, time.monotonic() - began)
    return 1 if problems else 0


def find_run() -> Path:
    """The Killian Court run of the installed package rtb-data."""
    spec = importlib.util.find_spec("rtbdata")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "data" / "killian.g2o.zip"
        if path.exists():
            return path
    raise UserError("the recording is missing: pip install rtb-data (45 MB, MIT licence) into this environment")


def _prepare(out: Path) -> None:
    """Make the folder, and clear it of a former demo's results so that nothing old can pass for new."""
    check_destination(out)
    out.mkdir(parents=True, exist_ok=True)
    foreign = sorted(p.name for p in out.iterdir() if p.name not in OWN_FILES and not p.name.startswith((".", BAG)))
    if foreign:
        raise UserError(f"{out} holds files that no demo left ({', '.join(foreign[:5])}); name an empty or new folder")
    for name in OWN_FILES:
        (out / name).unlink(missing_ok=True)


def _convert(archive: Path, options: Options) -> Path:
    """The recording as a ROS 2 bag; one that is there already is complete, since `convert` leaves no half bag."""
    bag = options.out / (f"{BAG}-{options.limit}" if options.limit else BAG)
    if bag.exists():
        print(f"using {bag} again")
    else:
        convert.main(convert.Options(log=archive, bag=bag, limit=options.limit))
    return bag


def _play_through_node(bag: Path, options: Options) -> tuple[int, dict[str, Any]]:
    """How many scans the player sent, and the node's last status, after the node has saved; `Failure` otherwise."""
    environment = isolated(free_domain())
    parameters = {
        "use_sim_time": "true",
        "output_folder": str(options.out.resolve()),
        "queue": str(QUEUE),
        "qos.odom.reliability": "reliable",
        "qos.scan.reliability": "reliable",
        "qos.scan.depth": str(DEPTH),
        **_viewed(options),
    }
    with Process("node", node_arguments(parameters), options.out / "node.log", environment) as node:
        follower = Follower(node, options.out / "status.json")
        log.info("the node starts; the first time on a machine it compiles for a minute or two")
        watch = Watch()
        follower.wait("be ready", START_UP, lambda status: status.get("state") in ("ready", "running"), watch)
        sent, rate = _play(bag, options, environment, follower, watch)
        print("final refinement and saving ...", flush=True)
        node.interrupt()
        code = node.wait(SAVING)
        if code not in (0, INTERRUPTED):
            raise Failure(f"the node ended with code {code} while saving\n{node.tail()}")
        if load_report(options.out) is None:
            raise Failure(f"the node ended without saving\n{node.tail()}")
    status = follower.read()
    status["map_to_odom"]["rate_hz"] = rate
    return sent, status


def _play(
    bag: Path, options: Options, environment: Mapping[str, str], follower: Follower, watch: Watch
) -> tuple[int, float]:
    """Play and wait until the node has worked everything off: how many scans were sent, and the rate of map->odom [Hz].

    Before and after the play the ROS clock stands, and map->odom with it: the rate that counts is the one between.
    """
    arguments = ["play", str(bag), "--rate", str(options.rate), "--json"]
    rates: list[float] = []
    with (
        Process("player", arguments, options.out / "player.log", environment) as player,
        progress("mapping", len(open_log(bag))) as advance,
    ):

        def show(status: dict[str, Any]) -> None:
            watch(status)
            rates.append(status["map_to_odom"]["rate_hz"])
            _show(advance, status)

        follower.wait("hear the player out", PLAYING, lambda status: player.code is not None, show)
        if player.code:
            raise Failure(f"the player ended with code {player.code}\n{player.tail()}")
        sent = int(player.last_json()["sent"]["/scan"])
        settle = "work off the scans still waiting"
        follower.wait(settle, DRAIN, Settled(sent), lambda status: _show(advance, status), fresh=True)
    return sent, statistics.median([rate for rate in rates if rate] or [0.0])


def _viewed(options: Options) -> dict[str, str]:
    """The node's parameters for the web view, if there is to be one."""
    if options.view == "none" or (options.view == "auto" and not display()):
        return {}
    return {"view": "web", "view_port": "0"}


def display() -> bool:
    """Whether a browser that is opened here would be seen."""
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))


class Watch:
    """Says where the web view is as soon as the node's status does, and opens a browser where it would be seen."""

    def __init__(self) -> None:
        self._said = False

    def __call__(self, status: Mapping[str, Any]) -> None:
        url = status.get("view")
        if url and not self._said:
            self._said = True
            print(f"web view: {url}", flush=True)
            if display():
                webbrowser.open(url)


class Settled:
    """Whether every scan sent was processed, dropped or lost, or nothing has moved for so long that none will come."""

    def __init__(self, sent: int) -> None:
        self._sent = sent
        self._seen: Any = None
        self._since = 0.0

    def __call__(self, status: Mapping[str, Any]) -> bool:
        scans = status["scans"]
        if scans["waiting"] == 0 and scans["received"] + scans["lost"] >= self._sent:
            return True
        if scans != self._seen:
            self._seen, self._since = scans, time.monotonic()
        return time.monotonic() - self._since > STALLED


def _show(advance: Advance, status: Mapping[str, Any]) -> None:
    learned = [f"{p['name']} {p['value']:.4f}" for p in status["parameters"] if p["status"] == "learned"]
    note = f"{status['keyframes']} keyframes, {status['loops']} loops"
    advance(status["scans"]["processed"], ", ".join([note, *learned[:3]]))


def _metrics(status: Mapping[str, Any]) -> dict[str, float]:
    """Figures of the node that the pipeline in its worker does not know."""
    tf, callbacks, memory = status["map_to_odom"], status["callbacks"], status["memory_bytes"]
    return {
        "node.map_to_odom_rate_hz": tf["rate_hz"],
        "node.map_to_odom_largest_gap_s": tf["largest_gap_s"],
        "node.callback_p50_ms": callbacks["p50_ms"],
        "node.callback_p99_ms": callbacks["p99_ms"],
        "node.memory_mib": memory["node"] / 2**20,
        "node.worker_memory_mib": memory["worker"] / 2**20,
    }


def _counts(sent: int, status: Mapping[str, Any]) -> dict[str, int]:
    """Where every scan of the player went: sent = processed + dropped + lost."""
    scans = status["scans"]
    dropped = {f"scans_dropped_{cause}": n for cause, n in scans["dropped"].items()}
    return {"scans_sent": sent, "scans_received": scans["received"], "scans_lost": scans["lost"], **dropped}


def _problems(sent: int, status: Mapping[str, Any], report: Mapping[str, Any]) -> list[str]:
    """What makes the demo a failure though it came to its end."""
    scans, found = status["scans"], []
    if scans["lost"] or status["odometry"]["lost"]:
        found.append(f"{scans['lost']} scans and {status['odometry']['lost']} odometry messages were lost by DDS")
    found += [f"{n} scans were dropped: {cause.replace('_', ' ')}" for cause, n in scans["dropped"].items() if n]
    if report["summary"]["scans"] != sent:
        found.append(f"{sent} scans were sent, {report['summary']['scans']} are in the saved trajectory")
    if status["worker"]["restarts"]:
        found.append(f"the worker process died and was restarted {status['worker']['restarts']} times")
    if report["evaluation"]["error"]:
        found.append(report["evaluation"]["error"])
    return found


def _tell(
    options: Options, status: Mapping[str, Any], report: Mapping[str, Any], problems: list[str], seconds: float
) -> None:
    summary, scores = report["summary"], report["evaluation"]["scores"]
    ate = {name: score["ate_rmse_m"] for name, score in scores.items()}
    print(
        f"{summary['scans']} scans over {summary['metres']:.0f} m in {seconds:.0f} s: "
        f"{summary['keyframes']} keyframes, {summary['loops']} loops, {summary['voxels']} voxels"
    )
    if ate:
        print(f"ATE RMSE to the published poses: odometry {ate['odometry']:.2f} m, mapped {ate['trajectory']:.2f} m")
    for p in report["parameters"]:
        if p["status"] == "learned":
            print(f"learned {p['name']}: {p['value']:.4g} +- {p['sigma']:.2g} {p['unit']}".rstrip())
    print("left in", options.out)
    for name in report["files"]:
        print("  ", options.out / name)
    for problem in problems:
        print(f"demo: {problem}", file=sys.stderr)
    if options.json:
        found = {
            "out": str(options.out),
            "ok": not problems,
            "problems": problems,
            "seconds": seconds,
            "ate": ate or None,
            **{name: summary[name] for name in ("scans", "keyframes", "loops", "voxels", "metres")},
            **{
                name: status[name]
                for name in ("map_to_odom", "callbacks", "memory_bytes", "compilations_after_warm_up")
            },
            "messages": {"scans": status["scans"], "odometry": status["odometry"]},
            "parameters": report["parameters"],
        }
        print(json.dumps(found, allow_nan=False))
    sys.stdout.flush()
