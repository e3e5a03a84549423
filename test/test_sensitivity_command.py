"""``python -m dsg_ros sensitivity`` on the folder of a run of a simulated robot."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import worlds

from dsg_ros import config
from dsg_ros.commands.sensitivity import Options, main
from dsg_ros.effect import metres
from dsg_ros.errors import UserError
from dsg_ros.io.map_folder import IN_RUN, read_map, write_map
from dsg_ros.keeping import restored_graph
from dsg_ros.learning.sensitivity import Sensitivity
from dsg_ros.pipeline import Slam

LEARNED = {"scale", "rotation_gain", "turn_per_metre", "lever.x", "lever.y", "time_offset"}


@pytest.fixture(scope="module")
def slam() -> Slam:
    """A robot that went round a block, its odometry off by 3 %, and closed the loop."""
    truth = worlds.drive(worlds.laps(worlds.BLOCK_ROUTE, 1.25))
    slam = Slam(config.Slam())
    for frame in worlds.frames(worlds.block(), truth, worlds.biased(truth, scale=1.03, turn_per_metre=0.02)):
        slam.process(frame)
    slam.finish()
    return slam


@pytest.fixture(scope="module")
def out(slam, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "out"
    write_map(folder / IN_RUN, slam.saved_map("block.clf"))
    return folder


def answer(capsys) -> dict:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_every_parameter_agrees_with_solving_again(out, capsys, tmp_path):
    figure = tmp_path / "sensitivity.png"
    assert main(Options(out, check=True, json=True, figure=figure)) == 0
    told = answer(capsys)
    assert told["parameters"].keys() == {f"odometry.{name}" for name in LEARNED | {"lateral_slip"}}
    assert (told["keyframes"], told["source"]) == (len(read_map(out / IN_RUN).stamps), "block.clf")
    assert 0.0 < told["last_pose_deviation_m"] < 0.1
    # This odometry has a pose a scan and no velocity, so that a time offset shifts nothing.
    assert told["parameters"].pop("odometry.time_offset")["last_pose_m"] == 0.0
    for name, entry in told["parameters"].items():
        assert entry["disagreement"] < 0.05, name
        assert entry["last_pose_m"] > 0.0, name
        assert entry["rms_m"] <= entry["worst_pose_m"], name
        assert entry["resolved_last_pose_m"] == pytest.approx(entry["last_pose_m"], rel=0.05)
    scale = told["parameters"]["odometry.scale"]
    assert scale["last_pose_sigma_m"] == pytest.approx(scale["last_pose_m"] * scale["sigma"] / scale["change"])
    assert told["parameters"]["odometry.lateral_slip"]["sigma"] is None, "it is not learned"
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert figure.stat().st_size > 10_000


def test_one_what_if_as_people_ask_it(out, capsys):
    assert main(Options(out / IN_RUN, parameter="scale", change="-2 %", json=True)) == 0
    table, last = capsys.readouterr().out.rsplit("{", 1)[0], answer_of(out, "scale", "-2 %")
    assert "+- " in table
    assert "solved again" not in table
    assert last.change == pytest.approx(-0.02 * last.value)


def answer_of(out: Path, name: str, change: str):
    saved = read_map(out / IN_RUN)
    return Sensitivity(*restored_graph(saved), saved.parameters).effect(name, change)


def test_the_folder_answers_as_the_pipeline_does(slam, out):
    """The live graph's poses are those of the last refinement, and so are the folder's."""
    live, kept = slam.what_if("turn_per_metre", "0.5 deg/m"), answer_of(out, "turn_per_metre", "0.5 deg/m")
    np.testing.assert_allclose(live.moved, kept.moved, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(live.odometry, kept.odometry, atol=1e-12)
    assert (live.name, live.value, live.sigma, live.status) == (kept.name, kept.value, kept.sigma, kept.status)
    # Half a degree a metre, over a lap of 40 m and more.
    assert metres(live.odometry).max() > 1.0


def test_a_change_that_is_not_small_fails_the_check(out, capsys):
    assert main(Options(out, parameter="noise.loop", change="300 %", check=True)) == 1
    assert main(Options(out, parameter="noise.loop", change="300 %")) == 0


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"change": "1 %"}, "--change: of which parameter"),
        ({"parameter": "wheels"}, "parameter 'wheels' is not one that moves the map; there are odometry"),
        ({"parameter": "scale", "change": "some"}, "change 'some': expected a number"),
        ({"parameter": "scale", "change": "60 %"}, "is outside"),
        ({"figure": Path("/nowhere/at/all.png")}, "there is no folder"),
    ],
)
def test_what_cannot_be_asked_is_refused(out, options, why):
    with pytest.raises(UserError, match=why):
        main(Options(out, **options))


def test_folders_without_a_graph_are_refused(out, tmp_path, slam):
    with pytest.raises(UserError, match="there is no such folder; a run leaves its map in OUT/map"):
        main(Options(tmp_path))
    damaged = tmp_path / "damaged"
    shutil.copytree(out, damaged)
    (graph,) = (damaged / IN_RUN).glob("graph-*.npz")
    graph.write_bytes(graph.read_bytes()[:-10])
    with pytest.raises(UserError, match="cut short or overwritten"):
        main(Options(damaged))
    saved = slam.saved_map()
    rows = {**saved.rows, "OdomSE3": {**saved.rows["OdomSE3"], "colour": np.zeros(len(saved.stamps) - 1)}}
    write_map(tmp_path / "newer", dataclasses.replace(saved, rows=rows))
    with pytest.raises(UserError, match="rows that this program does not know: OdomSE3 has no field 'colour'"):
        main(Options(tmp_path / "newer"))
    write_map(tmp_path / "empty", Slam(config.Slam()).saved_map())
    with pytest.raises(UserError, match="0 keyframes"):
        main(Options(tmp_path / "empty"))
