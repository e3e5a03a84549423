"""Traced programs on disk: found again without tracing, told apart, replaced when damaged."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsg_ros.core import programs
from dsg_ros.core.theta import Theta
from dsg_ros.core.variables import State

calls: list[str] = []


def moved(theta: Theta, state: State, nothing: None, *, times: float) -> tuple[State, dict[str, jax.Array], None]:
    """Results of several kinds: a module, a dictionary, nothing."""
    calls.append("traced")
    inverse = jnp.linalg.solve(jnp.eye(3) * 2.0, state.voxels.T).T  # calls LAPACK, as solvers do
    return State(state.poses * times, inverse), {"scale": theta.scale + times}, nothing


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DSG_ROS_CACHE", str(tmp_path))
    calls.clear()
    return tmp_path / "programs"


def arguments(poses: int = 2) -> tuple[Theta, State, None]:
    rng = np.random.default_rng(1)
    return Theta.neutral(), State(rng.normal(size=(poses, 7)), jnp.asarray(rng.normal(size=(4, 3)))), None


def check(result, poses: int = 2, times: float = 3.0) -> None:
    _, state, _ = arguments(poses)
    expected = moved(*arguments(poses), times=times)
    calls.pop()
    assert jax.tree.structure(result) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), result, expected)
    np.testing.assert_allclose(result[0].poses, state.poses * times, rtol=1e-12)


def test_a_program_on_disk_is_not_traced_again(folder: Path) -> None:
    check(programs.kept()(moved)(*arguments(), times=3.0))
    assert calls == ["traced"]
    assert len(list(folder.iterdir())) == 1
    check(programs.kept()(moved)(*arguments(), times=3.0))  # as another process would, with nothing in memory
    assert calls == ["traced"]


def test_another_process_runs_it(tmp_path: Path) -> None:
    """It calls LAPACK, which JAX 0.6 has to be told to find (a segmentation fault, else)."""
    script = tmp_path / "program.py"
    script.write_text(
        "import jax, numpy as np\n"
        "from dsg_ros.core import programs\n"
        "def solved(a, b): return jax.numpy.linalg.solve(a, b)\n"
        "print(programs.kept()(solved)(np.eye(2) * 2.0, np.ones(2)))\n"
    )
    environment = {**os.environ, "DSG_ROS_CACHE": str(tmp_path / "cache"), "PYTHONPATH": os.pathsep.join(sys.path)}
    for _ in range(2):
        done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=100)
        assert (done.returncode, done.stdout) == (0, "[0.5 0.5]\n"), done.stderr
    assert len(list((tmp_path / "cache" / "programs").iterdir())) == 1


def test_one_program_serves_arrays_of_the_host_and_of_the_device(folder: Path) -> None:
    program = programs.kept()(moved)
    check(program(*arguments(), times=3.0))
    check(program(*jax.device_put(arguments()), times=3.0))
    assert calls == ["traced"]


def test_shapes_and_static_arguments_make_other_programs(folder: Path) -> None:
    for poses, times in [(2, 3.0), (3, 3.0), (2, 4.0)]:
        check(programs.kept()(moved)(*arguments(poses), times=times), poses, times)
    assert len(calls) == 3
    assert len(list(folder.iterdir())) == 3


def test_derivatives_see_the_function_itself(folder: Path) -> None:
    theta, state, _ = arguments()
    program = programs.kept()(moved)
    gradient = jax.grad(lambda poses: jnp.sum(program(theta, State(poses, state.voxels), None, times=5.0)[0].poses))
    np.testing.assert_allclose(gradient(jnp.asarray(state.poses)), np.full((2, 7), 5.0))


def test_a_python_number_is_an_array(folder: Path) -> None:
    double = programs.kept()(lambda x: x * np.float32(2.0))
    assert double(0.1) == pytest.approx(0.2, rel=1e-15)  # weakly typed, it would be rounded to float32


@pytest.mark.parametrize("damage", [b"", b"no program", b"\x80\x05cno_such_module\nname\n."])
def test_a_damaged_program_is_made_anew(folder: Path, damage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    programs.kept()(moved)(*arguments(), times=3.0)
    (path,) = folder.iterdir()
    path.write_bytes(damage)
    with caplog.at_level(logging.WARNING):
        check(programs.kept()(moved)(*arguments(), times=3.0))
    assert str(path) in caplog.text
    calls.clear()
    check(programs.kept()(moved)(*arguments(), times=3.0))
    assert not calls


def test_only_the_programs_used_last_stay(folder: Path) -> None:
    for number in range(programs.KEPT + 3):
        programs.kept()(moved)(*arguments(), times=float(number))
    assert len(list(folder.iterdir())) == programs.KEPT


@pytest.mark.parametrize("place", ["", "/proc/nowhere"])
def test_without_a_folder_everything_works_but_the_keeping(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSG_ROS_CACHE", place)
    check(programs.kept()(moved)(*arguments(), times=3.0))
