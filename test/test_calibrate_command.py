"""``python -m dsg_ros calibrate``: robots whose calibration is known, what a drive does not show, and bad input."""

from __future__ import annotations

import json
import lzma
import math
from pathlib import Path

import numpy as np
import pytest
import recordings
import yaml
from scipy.io import savemat

from dsg_ros import cli, poses
from dsg_ros.io.trajectories import write_tum

KEYS = {"parameters", "held_out_before", "held_out_after", "metres", "held_out", "windows", "counts"}
DRIVE = ["--model", "diff_drive"]
LINEAR = ["--model", "linear"]


@pytest.fixture
def calibrate(capsys):
    """Run the command: the object it printed."""

    def run(path: Path, *arguments: object) -> dict:
        assert cli.main(["calibrate", str(path), *map(str, arguments), "--json"]) == 0
        told = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert set(told) >= KEYS
        assert all(set(p) - {"reason"} == {"value", "sigma", "unit", "status"} for p in told["parameters"].values())
        return told

    return run


@pytest.fixture
def refused(capsys):
    """Run the command on bad input: what it says."""

    def run(path: Path, *arguments: object) -> str:
        assert cli.main(["calibrate", str(path), *map(str, arguments), "--json"]) == 2
        told = capsys.readouterr()
        assert told.out == ""
        return told.err

    return run


def status(told: dict) -> dict[str, str]:
    return {name: p["status"] for name, p in told["parameters"].items()}


def apart(told: dict, truth: dict[str, float]) -> np.ndarray:
    """Errors in standard deviations."""
    return np.array(
        [(told["parameters"][name]["value"] - truth[name]) / told["parameters"][name]["sigma"] for name in truth]
    )


@pytest.fixture
def tuples(tmp_path) -> Path:
    return recordings.write_tuples(tmp_path / "a.tuple", recordings.wheel_tuples())


def test_a_differential_drive_is_found_without_a_start(tuples, calibrate):
    told = calibrate(tuples, *DRIVE)
    assert set(told["parameters"]) == set(recordings.ROBOT)
    assert set(status(told).values()) == {"learned"}
    assert np.abs(apart(told, recordings.ROBOT)).max() < 4
    assert told["parameters"]["axle"]["value"] == pytest.approx(0.3, rel=0.01)
    assert told["parameters"]["laser_yaw"]["unit"] == "rad"
    assert 0.8 < told["held_out_after"] < 1.2


def test_a_start_that_is_far_off_does_no_harm(tuples, calibrate):
    near = calibrate(tuples, *DRIVE)["parameters"]
    wrong = {"axle": 0.33, "left_wheel_diameter": 0.091, "laser_x": 0.0, "laser_yaw": 0.4 - 1.57}
    told = calibrate(tuples, *DRIVE, "--initial", *(f"{name}={value}" for name, value in wrong.items()))
    for name, parameter in told["parameters"].items():
        assert parameter["value"] == pytest.approx(near[name]["value"], abs=1e-3 * near[name]["sigma"])
    assert told["held_out_after"] < 0.2 * told["held_out_before"]


def test_parameters_that_are_known_stay_where_they_start(tuples, calibrate, refused):
    held = {"left_wheel_diameter": 0.102, "laser_yaw": 0.41}
    arguments = [f"{name}={value}" for name, value in held.items()]
    told = calibrate(tuples, *DRIVE, "--initial", *arguments, "--hold", *held)["parameters"]
    for name, value in held.items():
        assert (told[name]["value"], told[name]["sigma"], told[name]["status"]) == (value, 0, "frozen")
    # A known wheel that is 1 % larger makes a robot that is: only the ratios are seen in turns.
    assert told["axle"]["status"] == "learned"
    assert told["right_wheel_diameter"]["value"] / told["axle"]["value"] == pytest.approx(0.099 / 0.3, rel=0.02)
    assert "--initial axle=VALUE" in refused(tuples, *DRIVE, "--hold", "axle", "laser_x", "--initial", "laser_x=0")
    assert "did you mean axle?" in refused(tuples, *DRIVE, "--hold", "axel")
    assert "nothing is left" in refused(tuples, *DRIVE, "--hold", *recordings.ROBOT)


def test_slips_and_wrong_matches_do_little(tmp_path, calibrate):
    steps = recordings.wheel_tuples(outliers=0.1, count=1500)
    told = calibrate(recordings.write_tuples(tmp_path / "a.tuple", steps), *DRIVE)
    assert np.abs(apart(told, recordings.ROBOT)).max() < 4
    assert told["parameters"]["axle"]["value"] == pytest.approx(0.3, rel=0.01)


def test_a_straight_drive_shows_the_wheels_alone(tmp_path, calibrate):
    steps = recordings.wheel_tuples(kind="straight")
    for step in steps:  # wheels that are read with noise look as if they turned the robot
        step["phi_r"] += 0.02 * math.sin(1e6 * step["sm"][1])
    start = {"axle": 0.27, "laser_x": 0.1, "laser_y": 0.0}
    told = calibrate(
        recordings.write_tuples(tmp_path / "a.tuple", steps),
        *DRIVE,
        "--initial",
        *(f"{n}={v}" for n, v in start.items()),
    )
    for name, value in start.items():
        assert told["parameters"][name]["status"] == "unobservable"
        assert told["parameters"][name]["value"] == value
        assert "not observable" in told["parameters"][name]["reason"]
    assert told["parameters"]["left_wheel_diameter"]["value"] == pytest.approx(0.101, rel=0.01)
    assert told["parameters"]["laser_yaw"]["value"] == pytest.approx(0.4, abs=0.02)


def test_true_columns_of_a_mat_are_the_reference(tmp_path, calibrate):
    told = calibrate(recordings.write_mat(tmp_path / "a.mat"), *LINEAR)
    assert set(status(told).values()) == {"learned"}
    assert np.abs(apart(told, recordings.LINEAR)).max() < 4
    assert told["parameters"]["scale"]["value"] == pytest.approx(1.04, abs=0.003)
    assert told["held_out_after"] < 0.5 * told["held_out_before"]
    assert told["metres"] == pytest.approx(3000 * 0.05, rel=0.1)


@pytest.mark.slow
def test_standard_deviations_are_right(tmp_path, calibrate):
    """Normalised errors over seeds: mean square 1 with a standard error of sqrt(2 / 60)."""
    found = [
        apart(calibrate(recordings.write_mat(tmp_path / "a.mat", seed=seed, count=1500), *LINEAR), recordings.LINEAR)
        for seed in range(12)
    ]
    assert 0.4 < np.mean(np.square(found)) < 1.7
    assert np.abs(found).max() < 4.5


@pytest.mark.parametrize("kind", ["straight", "circle"])
def test_what_a_drive_does_not_show_stays_where_it_started(tmp_path, calibrate, kind):
    path = recordings.write_mat(tmp_path / "a.mat", kind=kind, count=2000)
    told = calibrate(path, *LINEAR, "--initial", "rotation_gain=0.99", "--initial", "lever_x=0.02")
    unseen = {"rotation_gain", "lever_x", "lever_y"} if kind == "straight" else {"rotation_gain", "turn_per_metre"}
    for name in unseen:
        assert told["parameters"][name]["status"] == "unobservable"
    assert told["parameters"]["rotation_gain"]["value"] == 0.99
    if kind == "straight":
        assert told["parameters"]["lever_x"]["value"] == 0.02
        assert told["parameters"]["turn_per_metre"]["value"] == pytest.approx(0.02, abs=0.01)
        assert told["parameters"]["scale"]["value"] == pytest.approx(1.04, abs=0.005)
    else:
        assert "rotation_gain" in told["parameters"]["turn_per_metre"]["reason"]


def test_kitti_poses_in_space_and_what_was_learned_elsewhere(tmp_path, calibrate):
    (tmp_path / "other").mkdir()
    odometry, truth = recordings.kitti_pair(tmp_path, "curves", 1500)
    told = calibrate(odometry, *LINEAR, "--reference", truth, "--out", tmp_path / "learned.yaml")
    assert told["parameters"]["scale"]["value"] == pytest.approx(0.98, abs=0.002)
    assert told["parameters"]["rotation_gain"]["value"] == pytest.approx(1.02, abs=0.005)
    assert {"lateral_slip", "vertical_slip", "pitch_per_metre", "roll_per_metre", "lever_z"} <= set(told["parameters"])
    assert told["drift_after"]["translation_percent"] < 0.5 * told["drift_before"]["translation_percent"]
    names = {p["name"] for p in yaml.safe_load((tmp_path / "learned.yaml").read_text())["parameters"]}
    assert "odometry.scale" in names  # as `run --freeze-theta` knows it
    other, its_truth = recordings.kitti_pair(tmp_path / "other", "curves", 600, seed=1)
    judged = calibrate(other, *LINEAR, "--reference", its_truth, "--freeze", tmp_path / "learned.yaml")
    assert set(status(judged).values()) == {"frozen"}
    assert judged["parameters"]["scale"]["value"] == told["parameters"]["scale"]["value"]
    assert judged["held_out_after"] < judged["held_out_before"]
    assert judged["drift_after"]["translation_percent"] < 0.5 * judged["drift_before"]["translation_percent"]


def test_a_straight_road_in_space(tmp_path, calibrate):
    odometry, truth = recordings.kitti_pair(tmp_path, "straight")
    told = calibrate(odometry, *LINEAR, "--reference", truth)
    unseen = {"rotation_gain", "lever_x", "lever_y", "lever_z"}
    assert {name for name, each in status(told).items() if each == "unobservable"} == unseen
    assert told["parameters"]["rotation_gain"]["value"] == 1
    assert told["parameters"]["scale"]["value"] == pytest.approx(0.98, abs=0.002)


def test_a_tum_trajectory_against_another(tmp_path, calibrate):
    odometry, truth = recordings.write_tum_pair(tmp_path)
    told = calibrate(odometry, *LINEAR, "--reference", truth)
    assert np.abs(apart(told, recordings.LINEAR)).max() < 4


def test_a_jump_of_the_reference_teaches_nothing(tmp_path, calibrate, caplog):
    odometry, truth = recordings.measured(recordings.LINEAR, "rooms", 2000, 0)
    moved = truth.copy()
    moved[1000:, 0] += 3.0
    stamps = 10**12 + 10**8 * np.arange(2001)
    write_tum(tmp_path / "odometry.tum", stamps, recordings.chain(odometry))
    write_tum(tmp_path / "jump.tum", stamps, moved)
    write_tum(tmp_path / "truth.tum", stamps, truth)
    told = calibrate(tmp_path / "odometry.tum", *LINEAR, "--reference", tmp_path / "jump.tum")
    assert told["counts"]["reference_jumps"] == 1
    assert "the reference jumps after s 1099.9" in caplog.text
    still = calibrate(tmp_path / "odometry.tum", *LINEAR, "--reference", tmp_path / "truth.tum")
    for name, parameter in still["parameters"].items():
        assert told["parameters"][name]["value"] == pytest.approx(parameter["value"], abs=parameter["sigma"])


def test_repeated_and_malformed_steps_are_counted(tmp_path, calibrate):
    steps = recordings.wheel_tuples()
    clean = calibrate(recordings.write_tuples(tmp_path / "a.tuple", steps), *DRIVE)["parameters"]
    twice = [*steps, *steps[:300], {**steps[0], "phi_l": float("nan")}]
    told = calibrate(recordings.write_tuples(tmp_path / "b.tuple", twice), *DRIVE)
    assert told["counts"] == {"repeated_steps": 300, "malformed_lines": 1}
    assert told["parameters"] == clean


def test_nan_in_a_mat_is_left_out(tmp_path, calibrate):
    bad = np.zeros(3001)
    bad[500:520] = np.nan
    x = recordings.measured(recordings.LINEAR, "rooms", 3000, 0)[1][:, 0]
    told = calibrate(recordings.write_mat(tmp_path / "a.mat", x_true=x + bad), *LINEAR)
    assert told["counts"]["reference_not_finite"] == 20
    assert np.abs(apart(told, recordings.LINEAR)).max() < 4


@pytest.mark.parametrize(
    ("initial", "why"),
    [
        ("axel=0.3", "did you mean axle?"),
        ("axle=300", "expected metres"),
        ("axle=3", "units mixed up"),
        ("axle=nan", "finite"),
        ("axle", "NAME=VALUE"),
        ("laser_yaw=90", "degrees"),
        ("scale=0.98", "diff_drive has axle"),
    ],
)
def test_starts_that_cannot_be(tuples, refused, initial, why):
    assert why in refused(tuples, *DRIVE, "--initial", initial)


def test_a_linear_start_out_of_bounds(tmp_path, refused):
    assert "outside [0.5, 1.5]" in refused(recordings.write_mat(tmp_path / "a.mat"), *LINEAR, "--initial", "scale=98")


def test_units_that_are_mixed_up(tmp_path, refused):
    steps = recordings.wheel_tuples()
    degrees = [{**s, "sm": [*s["sm"][:2], math.degrees(s["sm"][2])]} for s in steps]
    assert "degrees" in refused(recordings.write_tuples(tmp_path / "a.tuple", degrees), *DRIVE)
    millimetres = [{**s, "sm": [1e3 * s["sm"][0], 1e3 * s["sm"][1], s["sm"][2]]} for s in steps]
    assert "millimetres" in refused(recordings.write_tuples(tmp_path / "b.tuple", millimetres), *DRIVE)
    truth = recordings.measured(recordings.LINEAR, "rooms", 3000, 0)[1]
    turned = np.degrees(poses.yaw(truth))
    assert "degrees" in refused(recordings.write_mat(tmp_path / "a.mat", th_true=turned), *LINEAR)
    far = {"x_true": 1e3 * truth[:, 0], "y_true": 1e3 * truth[:, 1]}
    assert "units" in refused(recordings.write_mat(tmp_path / "b.mat", **far), *LINEAR)


def test_a_damaged_matlab_file_is_named(tmp_path, refused):
    path = tmp_path / "a.mat"
    savemat(path, {"t": np.arange(100.0)[:, None]}, do_compression=True)
    data = bytearray(path.read_bytes())
    data[-4:] = bytes(4)  # the checksum of what is packed: zlib's own error
    path.write_bytes(data)
    assert "a.mat: not a MATLAB file that can be read" in refused(path, *LINEAR)
    savemat(path, {"t": np.arange(100.0)[:, None]})
    data = bytearray(path.read_bytes())
    data[176] = 255  # the type of what follows: SciPy 1.17 reads it beyond all tables, and its process ends
    path.write_bytes(data)
    assert "a.mat: not a MATLAB file that can be read" in refused(path, *LINEAR)


def test_files_that_are_none_of_the_formats(tmp_path, refused):
    text, binary = tmp_path / "a.txt", tmp_path / "a.bin"
    text.write_text("a letter to a friend\n")
    binary.write_bytes(b"\x7fELF\0\0\0" * 100)
    for path in (text, binary, tmp_path / "missing"):
        assert "accepted are wheel tuples" in refused(path, *LINEAR)


def test_a_model_that_the_file_does_not_tell(tmp_path, tuples, refused):
    assert "take --model diff_drive" in refused(tuples, *LINEAR)
    assert "needs tuples" in refused(recordings.write_mat(tmp_path / "a.mat"), *DRIVE)


def test_references_that_do_not_fit(tmp_path, tuples, refused):
    odometry, truth = recordings.write_tum_pair(tmp_path, count=300)
    assert "give --reference" in refused(odometry, *LINEAR)
    assert "no reference" in refused(odometry, *LINEAR, "--reference", odometry)
    assert "holds its own reference" in refused(tuples, *DRIVE, "--reference", truth)
    later = tmp_path / "later.tum"
    later.write_text("".join(f"9{line}\n" for line in truth.read_text().splitlines()))
    assert "do not overlap in time" in refused(odometry, *LINEAR, "--reference", later)
    car, road = recordings.kitti_pair(tmp_path, "curves")
    short = tmp_path / "short.txt"
    short.write_text("".join(road.read_text().splitlines(keepends=True)[:-5]))
    assert "not of the same frames" in refused(car, *LINEAR, "--reference", short)
    assert "nothing can be learned from a copy" in refused(car, *LINEAR, "--reference", car)


def test_a_kitti_file_with_nan_names_the_line(tmp_path, refused):
    car, road = recordings.kitti_pair(tmp_path, "curves")
    lines = car.read_text().splitlines()
    lines[6] = " ".join(["nan", *lines[6].split()[1:]])
    car.write_text("\n".join(lines))
    assert f"{car}:7: not a KITTI pose" in refused(car, *LINEAR, "--reference", road)


def test_a_robot_that_stands(tmp_path, refused):
    steps = recordings.wheel_tuples()
    still = [{**s, "phi_l": 0.0, "phi_r": 0.0, "sm": [1e-5 * i, 0.0, 0.0]} for i, s in enumerate(steps)]
    assert "nothing moves" in refused(recordings.write_tuples(tmp_path / "a.tuple", still), *DRIVE)
    zero = np.zeros(3001)
    assert "nothing moves" in refused(recordings.write_mat(tmp_path / "a.mat", v=zero, om=zero), *LINEAR)
    lost = {"x_true": zero, "y_true": zero, "th_true": zero}
    assert "the reference stands still" in refused(recordings.write_mat(tmp_path / "b.mat", **lost), *LINEAR)


def test_learned_parameters_of_another_robot(tmp_path, tuples, refused, calibrate):
    learned = tmp_path / "learned.yaml"
    calibrate(tuples, *DRIVE, "--out", learned)
    assert "another --model" in refused(recordings.write_mat(tmp_path / "a.mat"), *LINEAR, "--freeze", learned)
    assert "--freeze with --initial" in refused(tuples, *DRIVE, "--freeze", learned, "--initial", "axle=0.3")
    text = learned.read_text()
    learned.write_text(text.replace("diff_drive.axle", "diff_drive.axel"))
    assert "unknown parameter 'diff_drive.axel'" in refused(tuples, *DRIVE, "--freeze", learned)


def test_a_corrected_log_is_a_reference(tmp_path, calibrate):
    """Odometry in one CARMEN log; the robot's true poses where its corrected twin has the laser's."""
    odometry, truth = recordings.measured(recordings.LINEAR, "rooms", 1000, 0)

    def lines(trajectory: np.ndarray) -> str:
        return "".join(
            f"FLASER 2 1.0 1.0 {place} {place} {100 + 0.1 * i:.6f} host {100 + 0.1 * i:.6f}\n"
            for i, pose in enumerate(trajectory)
            for place in [f"{pose[0]:.6f} {pose[1]:.6f} {float(poses.yaw(pose)):.6f}"]
        )

    (tmp_path / "a.log").write_text(lines(recordings.chain(odometry)))
    (tmp_path / "corrected.log").write_text(lines(truth))
    told = calibrate(tmp_path / "a.log", *LINEAR, "--reference", tmp_path / "corrected.log")
    assert np.abs(apart(told, recordings.LINEAR)).max() < 4


KHEPERA = {"axle": 0, "left_wheel_diameter": 1, "right_wheel_diameter": 2, "laser_x": 3, "laser_y": 4, "laser_yaw": 5}


@pytest.mark.parametrize(("name", "sigmas_agree"), [("l90", False), ("lstraight", True)])
def test_the_khepera_as_published(shared, calibrate, name, sigmas_agree):
    """From starts 10 % off, the laser turned by 1.57 rad.

    The deviations published for l90 are ten times the scatter of the published values of its three parts: they hold
    outliers that were not trimmed.  Those of lstraight are right.
    """
    folder = shared / "data" / "odometry_calibration" / "khepera"
    if not folder.is_dir():
        pytest.skip(f"the Khepera recordings are not on this machine ({folder})")
    published = json.loads((folder / f"{name}_results.json").read_text())
    values = np.array([published[key] for key in ("axle", "l_diam", "r_diam", "l_x", "l_y", "l_theta")])
    radii_first = np.sqrt(np.diag(published["covariance"]))
    sigmas = np.array([radii_first[2], 2 * radii_first[0], 2 * radii_first[1], *radii_first[3:]])
    wrong = values * [1.1, 0.9, 1.1, 0.9, 1.1, 1.0] + [0, 0, 0, 0, 0, 1.57]
    start = [f"{key}={value}" for key, value in zip(KHEPERA, wrong, strict=True)]
    told = calibrate(folder / f"{name}.tuple.xz", *DRIVE, "--initial", *start)["parameters"]
    found = np.array([told[key]["value"] for key in KHEPERA])
    np.testing.assert_allclose(found[:3], values[:3], rtol=2.5e-3)
    assert (np.abs(found - values)[3:] < 3 * sigmas[3:]).all()
    if sigmas_agree:
        ratio = np.array([told[key]["sigma"] for key in KHEPERA]) / sigmas
        assert (ratio > 0.5).all()
        assert (ratio < 2).all()


def test_a_part_of_a_drive_in_which_one_wheel_stands(shared, tmp_path, calibrate):
    """Its wild matches leave less than no information in some directions."""
    file = shared / "data" / "odometry_calibration" / "khepera" / "l90.tuple.xz"
    if not file.is_file():
        pytest.skip(f"the Khepera recordings are not on this machine ({file})")
    lines = lzma.decompress(file.read_bytes()).splitlines(keepends=True)
    (tmp_path / "part.tuple").write_bytes(b"".join(lines[1100:2190]))
    told = status(calibrate(tmp_path / "part.tuple", *DRIVE))
    assert told["axle"] == told["right_wheel_diameter"] == "unobservable"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kitti_drives_with_what_one_of_them_taught(shared, tmp_path, calibrate):
    folder = shared / "data" / "kitti_odometry"
    if not folder.is_dir():
        pytest.skip(f"the KITTI poses are not on this machine ({folder})")

    def run(sequence: str, *arguments: object) -> dict:
        file, truth = (folder / kind / f"{sequence}.txt.xz" for kind in ("ndt_lidar_odometry", "gt_poses"))
        return calibrate(file, *LINEAR, "--reference", truth, *arguments)

    run("00", "--out", tmp_path / "learned.yaml")
    for sequence, most in (("09", 3.7), ("10", 4.2), ("03", 6.68)):
        assert run(sequence, "--freeze", tmp_path / "learned.yaml")["drift_after"]["translation_percent"] <= most
    straight = run("04")["parameters"]
    for name, kept in (("rotation_gain", 1), ("lever_x", 0), ("lever_y", 0)):
        assert (straight[name]["status"], straight[name]["value"]) == ("unobservable", kept)
