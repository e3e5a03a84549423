"""Figures are judged by eye; here, that each draws for every kind of run, small and without warning."""

import io

import numpy as np
import pytest
from PIL import Image

from dsg_ros import poses
from dsg_ros.report.evaluation import Track, score
from dsg_ros.report.figures import style
from dsg_ros.report.figures.errors import draw_correction, draw_errors
from dsg_ros.report.figures.learning import draw_learning
from dsg_ros.report.figures.map import draw_map
from dsg_ros.report.figures.timings import draw_timings

RUNS = {
    "room": lambda runs: runs.room(),
    "court": lambda runs: runs.room(200.0, 2, 3000),
    "one scan": lambda runs: runs.cut(runs.room(), 1),
    "nothing": lambda runs: runs.empty(),
}


@pytest.mark.parametrize("make", RUNS.values(), ids=RUNS.keys())
@pytest.mark.parametrize("draw", [draw_map, draw_learning, draw_correction])
def test_every_figure_of_every_run(draw, make, runs):
    figure = draw(make(runs))
    png = style.to_png(figure)
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        assert image.width == style.WIDTH * style.DPI
        assert len(image.convert("RGB").getcolors(1 << 16)) > 2, "not an empty sheet"
    assert len(png) < 300_000


def test_errors_figure(runs):
    run = runs.room()
    truth = Track(run.stamps, run.causal)
    scores = [(name, score(Track(run.stamps, getattr(run, name)), truth)) for name in ("odometry", "live")]
    assert len(style.to_png(draw_errors(scores, truth))) < 300_000


def test_map_panels_share_one_scale_and_hold_both_trajectories(runs):
    run = runs.room()
    left, right = draw_map(run).axes
    assert np.ptp(left.get_xlim()) == pytest.approx(np.ptp(right.get_xlim()))
    for axes, color in ((left, style.BEFORE), (right, style.AFTER)):
        (line,) = [line for line in axes.lines if line.get_color() == color]
        x, y = line.get_data()
        assert axes.get_xlim()[0] < x.min()
        assert x.max() < axes.get_xlim()[1]
        assert axes.get_ylim()[0] < y.min()
        assert y.max() < axes.get_ylim()[1]


def test_a_wide_map_is_stacked(runs):
    run = runs.room()
    flat = run.trajectory.copy()
    flat[:, 0] *= 20
    left, right = draw_map(runs.with_trajectory(run, flat)).axes
    assert left.get_position().y0 > right.get_position().y1 - 1e-6


def test_strokes_lie_along_the_wall(runs):
    run = runs.room()
    _, right = draw_map(run).axes
    planar = np.linalg.norm(run.voxels.normals[:, :2], axis=1) > 0.5
    strokes = np.array(right.collections[0].get_segments())
    along = strokes[:, 1] - strokes[:, 0]
    assert len(strokes) == planar.sum()
    assert np.abs(np.einsum("ij,ij->i", along, run.voxels.normals[planar, :2])).max() < 1e-6
    np.testing.assert_allclose(strokes.mean(axis=1), run.voxels.means[planar, :2], atol=1e-5)


def test_learning_shows_every_parameter_and_what_was_rolled_back(runs):
    figure = draw_learning(runs.room())
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[1:] == ["odometry scale", "turn per metre", "lever x", "lateral slip"]
    assert "after, rolled back" in [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_timings_of_the_run_and_of_the_pipeline(runs):
    run, total, call = draw_timings(runs.METRICS).axes
    names = [[t.get_text() for t in axes.get_yticklabels()] for axes in (run, total, call)]
    assert names == [["start up", "processing"], ["graph", "register"], ["graph", "register"]]
    assert [bar.get_width() for bar in run.patches] == [2.1, 31.0]


def test_timings_of_a_node_have_no_run():
    figure = draw_timings({"seconds_total.graph": 1.0, "seconds_p50.graph": None, "seconds_p99.graph": 2.0})
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "The pipeline, in total [s]",
        "One call, median and p99 [ms]",
    ]
    assert all("not measured" in axes.texts[0].get_text() for axes in figure.axes)


def test_heading_correction_does_not_jump_at_half_a_turn(runs):
    run = runs.room()
    turning = poses.compose(run.trajectory, poses.from_planar(0.0, 0.0, np.linspace(0.0, 4.0, len(run.stamps))))
    _, heading = draw_correction(runs.with_trajectory(run, turning)).axes
    curve = heading.lines[1].get_ydata()
    assert np.abs(np.diff(curve)).max() < 20.0
