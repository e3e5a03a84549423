"""``python -m dsg_ros convert LOG BAG``: a recorded run as a rosbag2."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from dsg_ros.errors import UserError
from dsg_ros.io.bagwriter import BagWriter, RunWriter
from dsg_ros.io.kinds import bag_kind
from dsg_ros.io.logs import open_log
from dsg_ros.io.rawbag import RawBag
from dsg_ros.io.records import OdometryRecord, ScanRecord
from dsg_ros.io.transcribe import transcribe
from dsg_ros.progress import progress

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """Turn a CARMEN log, a g2o log with laser scans, or a ROS 1 bag into a ROS 2 bag.

    Logs become /odom, /scan, /tf (odom to base_link) and /tf_static (base_link to laser), stamped with the
    measurements' own time.  Of a bag, every topic is carried over.
    """

    log: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="LOG")]
    """The recorded run: .clf, .log, .g2o (also .bz2, .gz, .xz, .zip), .bag, .mcap, .db3 or a rosbag2 folder."""
    bag: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="BAG")]
    """Folder to create for the ROS 2 bag; it must not exist."""
    storage: Literal["mcap", "sqlite3"] = "mcap"
    """Storage plugin of the ROS 2 bag."""
    limit: int = 0
    """Stop after this many scans of a log, or messages of a bag; 0 takes all."""
    json: bool = False
    """Print one JSON object as the last line: messages by topic, what was left out, seconds."""


def main(options: Options) -> int:
    """Convert; 0 when BAG is complete."""
    if options.limit < 0:
        raise UserError(f"--limit {options.limit}: expected 0 (all) or a positive number")
    started = time.monotonic()
    counts: Counter[str] = Counter()
    is_bag = options.log.is_dir() or (options.log.is_file() and bool(bag_kind(options.log)))
    with BagWriter(options.bag, options.storage, source=options.log.name) as bag:
        total, steps = _bag(options.log, bag, counts) if is_bag else _log_records(options.log, bag, counts)
        _drive(steps, min(total, options.limit) if options.limit else total, options)
        if not bag.counts:
            raise UserError(f"{options.log}: nothing to write: no message could be read")
    _tell(options, bag, counts, time.monotonic() - started)
    return 0


def _log_records(path: Path, bag: BagWriter, counts: Counter[str]) -> tuple[int, Iterator[int]]:
    log = open_log(path)

    def steps() -> Iterator[int]:
        writer, scans, base = RunWriter(bag), 0, "base_link"
        for record in log:
            if isinstance(record, OdometryRecord):
                base = record.child_frame
                writer.odometry(record)
            elif isinstance(record, ScanRecord):
                writer.scan(record, base)
                scans += 1
                counts.clear()
                counts.update(log.counts)
                yield scans

    return len(log), steps()


def _bag(path: Path, bag: BagWriter, counts: Counter[str]) -> tuple[int, Iterator[int]]:
    source = RawBag(path)

    def steps() -> Iterator[int]:
        with source:
            yield from transcribe(source, bag, counts)

    return sum(topic.count for topic in source.topics), steps()


def _drive(steps: Iterator[int], total: int, options: Options) -> None:
    """Run ``steps`` to the end or to ``total``, with a progress bar where a person is watching."""
    with progress(f"{options.log.name} -> {options.bag.name}", total) as advance:
        for done in steps:
            if done % 50 == 0 or done >= total:
                advance(done)
            if options.limit and done >= total:
                break


def _tell(options: Options, bag: BagWriter, counts: Counter[str], seconds: float) -> None:
    left_out = {name: count for name, count in counts.items() if count}
    for name, count in left_out.items():
        _log.info("%s: %s: %d", options.log, name, count)
    topics = ", ".join(f"{topic} {count}" for topic, count in sorted(bag.counts.items()))
    print(f"{options.bag}: {topics}; {bag.duration:.1f} s of data in {seconds:.1f} s")
    if options.json:
        report = {
            "log": str(options.log),
            "bag": str(options.bag),
            "storage": options.storage,
            "topics": dict(sorted(bag.counts.items())),
            "messages": sum(bag.counts.values()),
            "duration": bag.duration,
            "left_out": left_out,
            "seconds": round(seconds, 3),
        }
        print(json.dumps(report))
