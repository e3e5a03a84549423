"""``run --map`` and ``relocalise`` on a log made here: a robot in a room without symmetry."""

import json

import numpy as np
import pytest
import worlds

from dsg_ros import poses
from dsg_ros.commands import relocalise
from dsg_ros.commands.run import Options, main
from dsg_ros.errors import UserError
from dsg_ros.io.trajectories import read_tum, write_tum

WALLS = worlds.polygon((0, 0), (9, 0), (9, 4), (5, 4), (5, 7), (2, 7), (2, 5), (0, 5))
TRUTH = worlds.drive([(1.5, 1.5), (7.5, 2.0), (3.5, 2.5), (3.5, 6.0), (3.5, 3.0), (1.0, 3.0)])
SCANS = len(TRUTH)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Folder with room.clf, that of the run that mapped it, and what the run printed."""
    room = tmp_path_factory.mktemp("room")
    rng = np.random.default_rng(5)
    lines = []
    for i, (pose, wheels) in enumerate(zip(TRUTH, worlds.biased(TRUTH, scale=1.05), strict=True)):
        ranges = worlds.ranges(WALLS, pose[:2], poses.yaw(pose) + np.radians(np.arange(-90, 90)))
        beams = " ".join(f"{r:.3f}" for r in ranges + rng.normal(0.0, 0.01, 180))
        where = f"{wheels[0]:.6f} {wheels[1]:.6f} {poses.yaw(wheels):.6f}"
        lines.append(f"FLASER 180 {beams} {where} {where} {1000 + 0.2 * i:.6f} robot {0.2 * i:.6f}\n")
    (room / "room.clf").write_text("".join(lines))
    assert main(Options(log=room / "room.clf", out=room / "out")) == 0
    return room, room / "out", json.loads((room / "out" / "report.json").read_text())


def test_the_same_log_is_localised_in_the_map_it_made(done, capsys):
    room, out, told = done
    before = {p.name: p.read_bytes() for p in (out / "map").iterdir()}
    again = Options(
        log=room / "room.clf", out=room / "inside", map=out / "map", reference=out / "trajectory.tum", json=True
    )
    assert main(again) == 0
    printed = capsys.readouterr().out
    inside = json.loads(printed.splitlines()[-1])
    counts = inside["counts"]
    assert f"{counts['scans_localised']} of {SCANS} scans; found 1 times, lost 0 times" in printed
    assert counts["scans_localised"] > SCANS / 2
    assert counts["scans_localised"] + counts["scans_not_localised"] == counts["scans"] == SCANS
    assert len(read_tum(room / "inside" / "trajectory.tum")[0]) == inside["scans"] == counts["scans_localised"]
    assert inside["ate"]["trajectory"] < 0.05
    assert inside["keyframes"] == told["summary"]["keyframes"]
    assert {p.name: p.read_bytes() for p in (out / "map").iterdir()} == before
    assert not (room / "inside" / "map").exists()


def test_scans_drawn_at_random_are_found_in_the_map(done, capsys):
    room, out, _ = done
    arguments = relocalise.Options(map=out / "map", log=room / "room.clf", trials=12, json=True)
    assert relocalise.main(arguments) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["right"] + told["refused"] == told["trials"] == 12
    assert told["right"] >= 6
    assert told["error_m"]["p100"] < 0.2
    assert told["metres"]["p100"] <= 10.0


def test_a_pose_that_is_wrong_is_counted_as_such(done, capsys):
    """Against a truth that is moved by a metre."""
    room, out, _ = done
    stamps, track = read_tum(out / "trajectory.tum")
    track[:, 0] += 1.0
    write_tum(room / "moved.tum", stamps, track)
    arguments = relocalise.Options(
        map=out / "map", log=room / "room.clf", truth=room / "moved.tum", trials=6, apart=2.0, json=True
    )
    assert relocalise.main(arguments) == 1
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["right"] == 0
    assert told["wrong"] >= 3
    assert told["not_right"][0]["error_m"] > 0.8


def test_scans_that_no_odometry_joins_are_not_drawn(done):
    room, out, _ = done
    arguments = relocalise.Options(map=out / "map", log=room / "room.clf", set=("input.odometry=none",))
    with pytest.raises(UserError, match="no odometry joins its scans"):
        relocalise.main(arguments)
