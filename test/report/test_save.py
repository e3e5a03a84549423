"""Real files, written and read back."""

import base64
import dataclasses
import json
import math
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import yaml
from PIL import Image

from dsg_ros import config
from dsg_ros.errors import UserError
from dsg_ros.io.learned import read_learned
from dsg_ros.io.pointfile import read_ply
from dsg_ros.io.trajectories import read_tum, write_tum
from dsg_ros.report import drawing
from dsg_ros.report.figures import style
from dsg_ros.report.save import FILES, TRAJECTORIES, amend, check_folder, load_report, save


@pytest.fixture(scope="module", autouse=True)
def small_pictures():
    """What is in a picture is not looked at here: fewer pixels take less time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "DPI", 40)
        yield


@pytest.fixture(scope="module")
def run(runs):
    return runs.room(scans=200)


@pytest.fixture(scope="module")
def saved(run, tmp_path_factory):
    """A run saved with a reference: (folder, what `save` returned)."""
    folder = tmp_path_factory.mktemp("saved") / "out"
    reference = folder.with_name("reference.tum")
    write_tum(reference, run.stamps, run.causal)
    settings = config.replace(config.Slam(), {"keyframes.distance": 0.5})
    return folder, save(run, folder, settings, reference)


def test_exactly_the_files_told_are_there(saved):
    folder, report = saved
    assert sorted(path.name for path in folder.iterdir()) == report["files"]
    assert set(report["files"]) == FILES


@pytest.mark.parametrize(("field", "name"), TRAJECTORIES.items())
def test_trajectories(saved, run, field, name):
    stamps, poses = read_tum(saved[0] / name)
    np.testing.assert_array_equal(stamps, run.stamps)
    np.testing.assert_allclose(poses, getattr(run, field), atol=1e-8)


def test_json_holds_what_the_run_was(saved, run):
    report = json.loads((saved[0] / "report.json").read_text())
    assert report == saved[1] == load_report(saved[0])
    assert report["summary"]["scans"] == 200
    assert report["summary"]["keyframes"] == len(run.path.stamps)
    assert report["summary"]["loops"] == len(run.path.loops)
    assert report["summary"]["first_stamp_ns"] == run.stamps[0]
    assert report["learning"]["updates"] == len(run.learning)
    assert report["learning"]["accepted"] == sum(s.accepted for s in run.learning)
    assert report["counts"]["scans_without_odometry"] == 1
    assert report["configuration"]["keyframes.distance"] == 0.5
    assert report["parameters"][0]["value"] == run.parameters[0].value
    assert report["evaluation"]["scores"]["trajectory"]["ate_rmse_m"] < 1e-6
    assert report["evaluation"]["scores"]["odometry"]["ate_rmse_m"] > 0.1


def test_json_has_finite_numbers_only(saved, run):
    assert math.isnan(run.metrics["not_a_number"])

    def refuse(name):
        raise AssertionError(f"{name} in report.json")

    report = json.loads((saved[0] / "report.json").read_text(), parse_constant=refuse)
    assert report["metrics"]["not_a_number"] is None


def test_map(saved, run):
    cloud = read_ply(saved[0] / "map.ply")
    np.testing.assert_array_equal(cloud.means, run.voxels.means)
    np.testing.assert_array_equal(cloud.counts, run.voxels.counts)


def test_the_grid_is_saved_for_map_server(saved, run):
    described = yaml.safe_load((saved[0] / "map.yaml").read_text())
    assert described["image"] == "map.pgm"
    assert described["origin"][:2] == pytest.approx(run.grid.origin)
    with Image.open(saved[0] / "map.pgm") as image:
        np.testing.assert_array_equal(np.asarray(image) == 0, run.grid.cells[::-1] == 100)


def test_a_run_without_a_grid_leaves_no_map_of_a_former_run(run, tmp_path):
    save(run, tmp_path, config.Slam())
    report = amend(tmp_path, source="court.bag")
    assert {"map.pgm", "map.yaml"} <= set(report["files"])
    report = save(dataclasses.replace(run, grid=None), tmp_path, config.Slam())
    assert not {"map.pgm", "map.yaml"} & set(report["files"])
    assert sorted(path.name for path in tmp_path.iterdir()) == report["files"]


def test_learned_parameters_come_back(saved, run):
    learned = read_learned(saved[0] / "learned.yaml")
    assert learned.parameters == run.parameters
    assert learned.provenance["log"] == run.source


class Page(HTMLParser):
    """What a browser would fetch, embed and show."""

    def __init__(self, text):
        super().__init__()
        self.references, self.words, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)
        self.references += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        self.words.append(data.strip())


def test_page_needs_nothing_but_itself(saved):
    folder, report = saved
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    figures = [name for name in report["files"] if name.endswith(".png")]
    assert len(page.references) == len(figures) == 5
    embedded = {base64.b64decode(r.removeprefix("data:image/png;base64,")) for r in page.references}
    assert embedded == {(folder / name).read_bytes() for name in figures}
    assert not re.search(r"https?://|url\(|@import", text)


def test_page_says_what_was_learned_counted_and_configured(saved, run):
    words = Page((saved[0] / "report.html").read_text()).words
    for expected in (
        "odometry_scale",
        "unobservable",
        "scans without odometry",
        "keyframes.distance",
        "killian.g2o.zip",
    ):
        assert expected in words
    assert any("(default 0.25)" in word for word in words)


def test_text_in_the_page_is_escaped(run, tmp_path):
    save(dataclasses.replace(run, source="<script>alert(1)</script>"), tmp_path, config.Slam())
    assert "<script>" not in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    "make", [lambda runs: runs.empty(), lambda runs: runs.cut(runs.room(), 1)], ids=["no scan", "one scan"]
)
def test_a_run_that_ended_at_once_is_saved_all_the_same(make, runs, tmp_path):
    report = save(make(runs), tmp_path, config.Slam())
    assert (tmp_path / "report.html").exists()
    assert report["summary"]["metres"] == 0.0
    assert len(read_tum(tmp_path / "trajectory.tum")[0]) == report["summary"]["scans"]


def test_comparing_afterwards_is_the_same_as_at_once(saved, run, tmp_path):
    folder, report = saved
    save(run, tmp_path / "later", config.replace(config.Slam(), {"keyframes.distance": 0.5}))
    assert "errors.png" not in load_report(tmp_path / "later")["files"]
    compared = amend(tmp_path / "later", folder.with_name("reference.tum"))
    assert compared["evaluation"] == report["evaluation"]
    assert compared["files"] == report["files"]
    assert (tmp_path / "later" / "errors.png").read_bytes() == (folder / "errors.png").read_bytes()
    assert len(Page((tmp_path / "later" / "report.html").read_text()).references) == 5


def test_what_only_the_caller_knows_is_added(run, tmp_path):
    save(run, tmp_path, config.Slam())
    report = amend(tmp_path, source="court.bag", metrics={"tf_gap_ms": 31.0}, counts={"messages_lost": 0})
    assert report == load_report(tmp_path)
    assert (report["source"], report["metrics"]["tf_gap_ms"], report["counts"]["messages_lost"]) == (
        "court.bag",
        31.0,
        0,
    )
    assert report["counts"]["scans_without_odometry"] == 1, "the run's own stay"
    assert {"court.bag", "tf gap ms", "messages lost"} <= set(Page((tmp_path / "report.html").read_text()).words)
    assert report["evaluation"] is None


def test_adding_to_what_was_not_saved_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no report\.json"):
        amend(tmp_path, tmp_path / "reference.tum")


def test_a_corrected_log_is_a_reference(run, saved, tmp_path):
    log = tmp_path / "corrected.log"
    lines = []
    for stamp, pose in zip((run.stamps * 1e-9).tolist(), run.causal, strict=True):
        x, y, heading = pose[0], pose[1], 2 * np.arctan2(pose[5], pose[6])
        lines.append(
            f"FLASER 2 1.0 1.0 {x:.9f} {y:.9f} {heading:.9f} {x:.9f} {y:.9f} {heading:.9f} {stamp:.9f} robot 0\n"
        )
    log.write_text("".join(lines))
    scores = save(run, tmp_path / "out", config.Slam(), log)["evaluation"]["scores"]
    for name, score in saved[1]["evaluation"]["scores"].items():
        assert scores[name]["ate_rmse_m"] == pytest.approx(score["ate_rmse_m"], abs=1e-5)


def test_a_reference_of_another_recording_costs_nothing_but_itself(run, tmp_path):
    reference = tmp_path / "other.tum"
    write_tum(reference, run.stamps + 10**12, run.trajectory)
    report = save(run, tmp_path / "out", config.Slam(), reference)
    assert "same recording" in report["evaluation"]["error"]
    assert "same recording" in (tmp_path / "out" / "report.html").read_text()
    assert "errors.png" not in report["files"]
    assert (tmp_path / "out" / "map.ply").exists()


def test_a_second_run_replaces_the_first_whole(saved, run, runs, tmp_path):
    reference = saved[0].with_name("reference.tum")
    save(run, tmp_path, config.Slam(), reference)
    report = save(runs.cut(run, 50), tmp_path, config.Slam())
    assert sorted(path.name for path in tmp_path.iterdir()) == report["files"]
    assert len(read_tum(tmp_path / "trajectory.tum")[0]) == 50


def test_what_fails_half_way_leaves_the_former_run_untouched(run, tmp_path):
    save(run, tmp_path, config.Slam())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    broken = dataclasses.replace(run, causal=run.causal[:-1])
    with pytest.raises(ValueError, match="stamps with poses"):
        save(broken, tmp_path, config.Slam())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_folders_that_may_be_written_to(saved, tmp_path):
    check_folder(tmp_path / "new")
    check_folder(tmp_path)
    check_folder(saved[0])
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="not a run of dsg_ros"):
        check_folder(tmp_path)
    with pytest.raises(UserError, match="is a file"):
        check_folder(tmp_path / "thesis.tex")
    with pytest.raises(UserError, match=r"thesis\.tex is a file"):
        check_folder(tmp_path / "thesis.tex" / "run" / "today")
    with pytest.raises(UserError, match="nothing can be written to /proc"):
        check_folder("/proc/run")
    assert sorted(tmp_path.iterdir()) == [tmp_path / "thesis.tex"]


def test_a_folder_that_cannot_be_made_is_told(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to"):
        save(run, tmp_path / "file" / "out", config.Slam())


def test_another_process_draws_the_same(saved, run, tmp_path, monkeypatch):
    monkeypatch.setattr(style, "DPI", 200)  # the other process knows no other
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    with drawing.drawing_aside() as draw:
        assert draw is not drawing.here
        drawn = draw(drawing.of_run, run)
        assert drawn() == drawing.of_run(run)
        save(run, tmp_path, config.Slam(), saved[0].with_name("reference.tum"), draw)
    assert sorted(path.name for path in tmp_path.iterdir()) == saved[1]["files"]
