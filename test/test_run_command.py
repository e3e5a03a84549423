"""``python -m dsg_ros run`` on a log made here: a robot in a room, its odometry over-reading by 5 %."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest

from dsg_ros import config
from dsg_ros.commands._run_teaching import read_teaching
from dsg_ros.commands.run import Options, main
from dsg_ros.commands.simulate import Options as Simulated
from dsg_ros.commands.simulate import main as simulate
from dsg_ros.effect import with_margin
from dsg_ros.errors import UserError
from dsg_ros.io.logs import base_frame
from dsg_ros.io.records import Topics
from dsg_ros.io.trajectories import read_tum, write_tum
from dsg_ros.poses import from_planar

HALF = np.array([6.0, 4.0])
SCANS = 160


def truth(scans: int) -> np.ndarray:
    """(n, 3) x, y, heading: once round an ellipse in the room and on."""
    angle = np.linspace(0.0, 2 * np.pi * scans / 140, scans)
    x, y = 3.5 * np.cos(angle), 2.0 * np.sin(angle)
    return np.column_stack([x, y, np.unwrap(np.arctan2(2.0 * np.cos(angle), -3.5 * np.sin(angle)))])


def ranges(pose: np.ndarray) -> np.ndarray:
    """180 beams from ``pose`` to the walls of the room and to a pillar at (0, 0.5), by ray casting."""
    direction = pose[2] + np.radians(np.arange(-90, 90))
    d = np.column_stack([np.cos(direction), np.sin(direction)])
    with np.errstate(divide="ignore"):
        wall = np.min(np.where(d > 0, (HALF - pose[:2]) / d, (-HALF - pose[:2]) / d), axis=1)
    offset = pose[:2] - np.array([0.0, 0.5])
    b = d @ offset
    inside = b**2 - offset @ offset + 0.4**2
    pillar = np.where((inside > 0) & (b < 0), -b - np.sqrt(np.maximum(inside, 0.0)), np.inf)
    return np.minimum(wall, pillar)


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """Folder with room.clf, a CARMEN log, and truth.tum."""
    folder = tmp_path_factory.mktemp("room")
    rng = np.random.default_rng(5)
    poses = truth(SCANS)
    steps = np.diff(poses, axis=0)
    odometry = np.vstack([poses[:1], poses[0] + np.cumsum(steps * [1.05, 1.05, 1.0], axis=0)])
    lines = []
    for i, (pose, odom) in enumerate(zip(poses, odometry, strict=True)):
        beams = " ".join(f"{r:.3f}" for r in ranges(pose) + rng.normal(0.0, 0.01, 180))
        x, y, heading = odom
        where = f"{x:.6f} {y:.6f} {heading:.6f}"
        lines.append(f"FLASER 180 {beams} {where} {where} {1000 + 0.2 * i:.6f} robot {0.2 * i:.6f}\n")
    (folder / "room.clf").write_text("".join(lines))
    stamps = (1000 * 10**9 + np.arange(SCANS) * 2 * 10**8).astype(np.int64)
    write_tum(folder / "truth.tum", stamps, from_planar(*poses.T))
    return folder


@pytest.fixture(scope="module")
def done(room):
    """A whole run as a user starts it: (folder of the results, the JSON it printed)."""
    out = room / "out"
    arguments = [room / "room.clf", "--out", out, "--reference", room / "truth.tum", "--json"]
    ended = subprocess.run(
        [sys.executable, "-m", "dsg_ros", "run", *map(str, arguments)], capture_output=True, text=True, timeout=200
    )
    assert ended.returncode == 0, ended.stderr
    return out, json.loads(ended.stdout.splitlines()[-1])


def test_every_scan_is_mapped_and_nothing_compiles_on_the_way(done):
    _, told = done
    assert told["scans"] == SCANS
    assert 20 < told["keyframes"] < SCANS
    assert told["compilations_after_warm_up"] == 0
    assert told["peak_memory_bytes"] > 50e6
    assert set(told["seconds"]) == {"reading", "start_up", "processing", "finish", "sensitivity", "saving"}
    assert not told["interrupted"]


def test_the_map_corrects_the_odometry(done):
    _, told = done
    assert told["ate"]["odometry"] > 0.1
    assert told["ate"]["trajectory"] < 0.05


def test_the_report_says_what_each_parameter_would_move(done):
    out, _ = done
    told = json.loads((out / "report.json").read_text())["sensitivity"]
    assert 0.0 < told["last_pose_deviation_m"] < 0.1
    effects = {effect["parameter"]: effect for effect in told["effects"]}
    assert {"odometry.scale", "odometry.rotation_gain"} <= effects.keys()
    assert all(effect["disagreement"] < 0.05 for effect in effects.values())
    page = (out / "report.html").read_text()
    assert "<h2>Sensitivity</h2>" in page
    scale = effects["odometry.scale"]
    assert with_margin(scale["last_pose_m"], scale["last_pose_margin_m"], "m").replace("+-", "±") in page


def test_the_files_are_those_the_report_names(done):
    out, told = done
    report = json.loads((out / "report.json").read_text())
    assert sorted(p.name for p in out.iterdir()) == sorted([*report["files"], "map"])
    assert report["source"] == "room.clf"
    assert report["summary"]["keyframes"] == told["keyframes"]
    assert report["counts"] == told["counts"]
    assert {p["name"] for p in report["parameters"]} == set(told["parameters"])
    assert len(read_tum(out / "trajectory.tum")[0]) == SCANS


def test_a_former_run_is_replaced_and_theta_stays_frozen(done, room, capsys):
    out, told = done
    settings = ("keyframes.distance=0.5",)
    again = Options(
        log=room / "room.clf", out=room / "again", limit=40, freeze_theta=out / "learned.yaml", set=settings, json=True
    )
    for _ in range(2):
        assert main(again) == 0
    frozen = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert frozen["scans"] == 40
    values = {name: p["value"] for name, p in frozen["parameters"].items()}
    assert values == pytest.approx({name: p["value"] for name, p in told["parameters"].items()})
    assert all(p["status"] == "frozen" for p in frozen["parameters"].values())
    report = json.loads((room / "again" / "report.json").read_text())
    assert report["configuration"]["keyframes.distance"] == 0.5
    assert report["learning"]["updates"] == 0


def test_ctrl_c_leaves_whole_files_of_what_was_done(room):
    out = room / "interrupted"
    log = room / "long.clf"
    log.write_text((room / "room.clf").read_text() * 30)
    process = subprocess.Popen(
        [sys.executable, "-m", "dsg_ros", "run", str(log), "--out", str(out), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    with process:
        for line in process.stderr:
            if "mapping" in line:
                break
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        told, errors = process.communicate(timeout=100)
    assert process.returncode == 130
    assert "Traceback" not in errors
    result = json.loads(told.splitlines()[-1])
    assert result["interrupted"]
    assert 0 < result["scans"] < 30 * SCANS
    assert len(read_tum(out / "trajectory.tum")[0]) == result["scans"]
    assert (out / "report.html").read_text().rstrip().endswith("</html>")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"log": "absent.clf"}, "absent.clf"),
        ({"log": "truth.tum"}, "not a log this program knows"),
        ({"limit": -1}, "--limit -1"),
        ({"set": ("keyframes.distanse=1",)}, "unknown parameter 'keyframes.distanse'"),
        ({"config": "absent.yaml"}, "absent.yaml"),
        ({"reference": "absent.tum"}, "absent.tum"),
        ({"freeze_theta": "truth.tum"}, "truth.tum"),
        ({"antenna": (0.1, 0.0, 0.0)}, "--antenna: they are about what --teach names"),
        ({"teach": "truth.tum", "antenna": (0.1, 0.0, 0.0)}, "poses of the base, not positions"),
        ({"teach": "truth.tum", "teach_topic": "/fix"}, "is no bag"),
        ({"out": "."}, "not a run of dsg_ros"),
        ({"map": "absent"}, "absent: there is no such folder"),
        ({"map": "."}, "no map: manifest.json is missing"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(room, wrong, message):
    paths = {name: room / value for name, value in wrong.items() if isinstance(value, str)}
    options = Options(**({"log": room / "room.clf", "out": room / "refused"} | wrong | paths))
    with pytest.raises(UserError, match=message):
        main(options)
    assert not (room / "refused").exists()


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    """A bag of a robot with a receiver in the office."""
    path = tmp_path_factory.mktemp("bags") / "bag"
    world = config.Simulation(
        world="office",
        drive=config.SimulatedDrive(metres=24.0),
        scanner=config.SimulatedScanner(rate=5.0),
        receiver=config.SimulatedReceiver(rate=5.0, deviation=0.02),
    )
    assert simulate(Simulated(path, world)) == 0
    return path


def test_the_fixes_of_a_bag_teach_its_run(bag, tmp_path):
    assert main(Options(bag, tmp_path / "out", teach=bag)) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    counts = report["counts"]
    assert counts["reference_positions"] > 100
    assert counts["reference_not_used"] + counts["reference_missing"] + counts["positions_jump"] < 10
    scale = next(p for p in report["parameters"] if p["name"] == "odometry.scale")
    assert scale["sigma"] < 0.02  # of 0.05 where nothing has taught it


def test_positions_are_read_from_bags_and_text(bag, tmp_path):
    base = partial(base_frame, bag, Topics())
    fixes = read_teaching(bag, "", None, base)
    np.testing.assert_allclose(fixes.told[0].antenna, [0.2, 0.1, 1.0], atol=1e-9)
    np.testing.assert_allclose(read_teaching(bag, "/fix", (1.0, 2.0, 3.0), base).told[0].antenna, [1.0, 2.0, 3.0])
    np.testing.assert_allclose(np.diag(fixes.told[3].covariance), [4e-4, 4e-4, 16e-4])
    stamps, true = read_tum(bag.with_name("bag.tum"))
    way = np.array([told.position[:2] for told in fixes.told])
    there = np.array([true[np.argmin(np.abs(stamps - told.stamp)), :2] for told in fixes.told])
    apart = np.linalg.norm(way - way[0], axis=1) - np.linalg.norm(there - there[0], axis=1)
    assert np.abs(apart).max() < 0.5, "metres, as the truth has them"
    with pytest.raises(UserError, match="no topic /gps"):
        read_teaching(bag, "/gps", None, base)
    text = tmp_path / "track.txt"
    text.write_text("# stamp x y z\n1.5 1 2 3\n1.25, 4, 5, 6\n")
    told = read_teaching(text, "", (0.1, 0.2, 0.3), base).told
    assert [each.stamp for each in told] == [1_250_000_000, 1_500_000_000]
    assert told[0].position.tolist() == [4.0, 5.0, 6.0]
    text.write_text("1.5 1 2 3\n1.6 1 2\n")
    with pytest.raises(UserError, match=r"track\.txt:2: expected stamp x y z"):
        read_teaching(text, "", None, base)


def test_a_log_without_a_usable_scan_says_what_was_left_out(tmp_path):
    (tmp_path / "lost.clf").write_text("FLASER 3 1 1 1 nan 0 0 nan 0 0 1.0 robot 1.0\n" * 3)
    with pytest.raises(UserError, match="no scan could be used: odometry_received 3, odometry_not_finite 3"):
        main(Options(log=tmp_path / "lost.clf", out=tmp_path / "out"))


def test_scans_of_invalid_ranges_are_in_the_trajectory_where_odometry_leads(room, done, tmp_path):
    """The first ten, every second one after that, and the last ten: a line for each scan of the log."""
    lines = (room / "room.clf").read_text().splitlines()
    invalid = [n for n in range(SCANS) if n < 10 or n >= SCANS - 10 or n % 2]
    for number in invalid:
        words = lines[number].split()
        count = int(words[1])
        lines[number] = " ".join([*words[:2], *["81.83"] * count, *words[2 + count :]])
    (tmp_path / "blind.clf").write_text("\n".join(lines) + "\n")
    main(Options(log=tmp_path / "blind.clf", out=tmp_path / "out"))
    counts = json.loads((tmp_path / "out" / "report.json").read_text())["counts"]
    assert counts["scans_without_points"] == counts["scans_on_odometry_alone"] + 1 == len(invalid)
    stamps, track = read_tum(tmp_path / "out" / "trajectory.tum")
    seen_stamps, seen = read_tum(room / "out" / "trajectory.tum")
    np.testing.assert_array_equal(stamps, seen_stamps)
    assert np.abs(track - seen)[:, :2].max() < 0.15


def test_a_map_in_which_nothing_was_seen_is_not_localised_in(room, tmp_path):
    lines = [line.split() for line in (room / "room.clf").read_text().splitlines()[:8]]
    text = "".join(" ".join([*w[:2], *["81.83"] * int(w[1]), *w[2 + int(w[1]) :]]) + "\n" for w in lines)
    (tmp_path / "blind.clf").write_text(text)
    main(Options(log=tmp_path / "blind.clf", out=tmp_path / "out"))
    assert (tmp_path / "out" / "trajectory.tum").read_text().count("\n") == 8
    with pytest.raises(UserError, match="no keyframe that has seen anything"):
        main(Options(log=tmp_path / "blind.clf", out=tmp_path / "again", map=tmp_path / "out" / "map"))


def test_a_run_is_watched_in_a_browser_until_ctrl_c(room, tmp_path):
    from view_client import Client  # skips where the view's library is not installed

    terminal, stdin = os.openpty()  # where nobody sits at a terminal, the page goes with the run
    words = ["run", room / "room.clf", "--out", tmp_path / "out", "--view", "web", "--set", "view_port=0"]
    run = subprocess.Popen(
        [sys.executable, "-m", "dsg_ros", *map(str, words)],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    stays = "the web view stays at "
    url = next(line.removeprefix(stays).split()[0] for line in run.stdout if line.startswith(stays))
    result = json.loads((tmp_path / "out" / "report.json").read_text())["summary"]
    with Client(url) as client:
        client.until(lambda c: c.voxels == result["voxels"], "the whole map")
        assert len(client.lines["/map/mapped"]) == result["keyframes"] - 1
        assert any(text.startswith(f"{SCANS} scans") for text in client.texts.values())
        assert client.chart("odometry.scale")
    run.send_signal(signal.SIGINT)
    assert run.wait(30.0) == 0
    run.stdout.close()
    os.close(terminal)
    os.close(stdin)


def test_a_run_whose_view_has_no_port_ends_before_it_begins(room, tmp_path):
    pytest.importorskip("viser", reason="the web view's library is not installed (pip install viser)")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot listen on 127.0.0.1, port {port}"):
            main(Options(room / "room.clf", tmp_path / "out", view="web", set=(f"view_port={port}",)))
    assert not (tmp_path / "out").exists()
