"""Compiled kernels' own algebra against NumPy's and against `dsg_ros.poses`, and where their compilation is kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from dsg_ros import poses
from dsg_ros.core.compilation import CompileCounter
from dsg_ros.core.native import cells, compiled, se3, small

Array = NDArray[np.float64]

numbers = st.floats(-3, 3)
tangents = arrays(np.float64, 6, elements=numbers).filter(lambda t: np.linalg.norm(t[3:]) < 3.1)
angles = st.sampled_from([0.0, 1e-12, 1e-7, 0.9e-5, 1.1e-5, 0.9e-4, 1.1e-4, 1.0, 3.1])


def same(a: Array, b: Array) -> None:
    assert_allclose(poses.matrix(a), poses.matrix(b), atol=1e-9)


@given(tangents, tangents)
def test_se3_is_that_of_poses(a: Array, b: Array) -> None:
    x, y = poses.exp(a), poses.exp(b)
    same(se3.exp(a), x)
    same(se3.compose(x, y), poses.compose(x, y))
    same(se3.between(x, y), poses.between(x, y))
    assert_allclose(se3.rotation_matrix(x), poses.matrix(x)[:3, :3], atol=1e-12)
    assert_allclose(se3.log(x), poses.log(x), atol=1e-9)
    assert_allclose(se3.log(-x * np.repeat([-1.0, 1.0], [3, 4])), poses.log(x), atol=1e-9)  # -q is the same rotation


@given(tangents, arrays(np.float64, (6, 6), elements=numbers))
def test_a_covariance_is_carried_by_the_adjoint(tangent: Array, root: Array) -> None:
    relative, covariance = poses.exp(tangent), root @ root.T
    back = poses.adjoint(poses.inverse(relative))
    assert_allclose(se3.carried(relative, covariance), back @ covariance @ back.T, atol=1e-9)


@given(angles, st.integers(0, 100))
def test_se3_at_small_and_large_turns(angle: float, seed: int) -> None:
    axis = np.random.default_rng(seed).normal(size=3)
    tangent = np.concatenate([[1.0, -2.0, 0.5], angle * axis / np.linalg.norm(axis)])
    same(se3.exp(tangent), poses.exp(tangent))
    assert_allclose(se3.log(se3.exp(tangent)), tangent, atol=1e-9)


@given(arrays(np.float64, (4, 4), elements=numbers), arrays(np.float64, 4, elements=numbers))
def test_positive_definite_systems_are_solved(root: Array, right: Array) -> None:
    matrix = root @ root.T + 0.1 * np.eye(4)
    out = np.empty(4)
    assert small.solve_positive(matrix.copy(), right, out)
    assert_allclose(matrix @ out, right, atol=1e-8)


@pytest.mark.parametrize(
    "matrix", [np.zeros((3, 3)), np.diag([1.0, -1.0, 1.0]), np.ones((3, 3)), np.full((3, 3), np.nan)]
)
def test_a_singular_system_is_refused(matrix: Array) -> None:
    out = np.full(3, 7.0)
    assert not small.solve_positive(matrix.copy(), np.ones(3), out)
    assert out.tolist() == [7.0] * 3


@given(arrays(np.float64, (3, 3), elements=numbers))
def test_spatial_eigenvalues(root: Array) -> None:
    matrix = root @ root.T
    values, axes = np.empty(3), np.empty((3, 3))
    small.eigen_spatial(matrix, values, axes)
    assert_allclose(values, np.linalg.eigvalsh(matrix), atol=1e-9)
    assert_allclose(axes.T @ np.diag(values) @ axes, matrix, atol=1e-9)
    assert_allclose(axes @ axes.T, np.eye(3), atol=1e-9)


@given(st.sets(st.integers(0, 2**62), min_size=1, max_size=60))
def test_a_hash_table_finds_every_key(keys: set[int]) -> None:
    slots = np.full(128, cells.EMPTY, np.int64)
    for key in keys:
        at = cells.slot_of(slots, key)
        assert slots[at] == cells.EMPTY
        slots[at] = key
    assert all(slots[cells.slot_of(slots, key)] == key for key in keys)


def test_walls_scatter_in_the_hash_table() -> None:
    """Neighbouring cells, as walls have them, take few steps to find at a load of a half."""
    line = [(x, y) for x in range(-250, 250) for y in (-20, -19, 0, 31)]
    slots = np.full(4096, cells.EMPTY, np.int64)
    steps = []
    for x, y in line:
        key = cells.pack(x, y, 0)
        at = cells.slot_of(slots, key)
        alone = cells.slot_of(np.full(4096, cells.EMPTY, np.int64), key)
        steps.append((at - alone) % len(slots))
        slots[at] = key
    assert np.mean(steps) < 1.0


def test_compilations_are_counted() -> None:
    @compiled
    def fresh(x: float) -> float:
        return 2.0 * x

    with CompileCounter() as counter:
        assert fresh(2.0) == 4.0
    assert counter.count >= 1
    with CompileCounter() as counter:
        assert fresh(3.0) == 6.0
    assert counter.count == 0


KERNEL = "from dsg_ros.core.native import se3; import numpy as np; se3.rotate(np.array([0, 0, 0, 1.0]), np.ones(3))"


@pytest.mark.parametrize("kept", [True, False])
def test_compiled_code_is_kept_where_the_variable_says(tmp_path: Path, kept: bool) -> None:
    folder = tmp_path / "cache"
    environment = os.environ | {"DSG_ROS_CACHE": str(folder) if kept else "", "DSG_ROS_BUILT": ""}
    subprocess.run([sys.executable, "-c", KERNEL], env=environment, check=True, timeout=120)
    assert bool(list(folder.rglob("*.nbi"))) == kept


SORTING = """
import sys
import numpy as np
from dsg_ros.core.native import compiled

@compiled
def order(a):
    return np.argsort(a)

@compiled
def ordered(a):
    return np.sort(a)

a = np.random.default_rng(0).integers(-(2**50), 2**50, 1000)
for wanted in sys.argv[1:]:
    kernel = globals()[wanted]
    kernel(a)
    print(kernel.overloads[kernel.signatures[0]].fndesc.mangled_name)
"""


def test_kernels_kept_by_several_processes_have_names_of_their_own(tmp_path: Path) -> None:
    """Two that have the same name, whatever they do, are the same one where both are fetched: a sort did not sort."""
    program = tmp_path / "sorting.py"
    program.write_text(SORTING)

    def names(cache: str, *kernels: str) -> list[str]:
        folders = {"DSG_ROS_CACHE": str(tmp_path / cache), "DSG_ROS_BUILT": ""}
        environment = os.environ | folders | {"PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, str(program), *kernels]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
        return done.stdout.split()

    once, again = names("a", "order", "ordered"), names("b", "order", "ordered")
    assert len(set(once + again)) == 4
    assert names("a", "ordered", "order") == once[::-1]  # fetched, as they were kept
    files = {path.name for folder in ("a", "b") for path in (tmp_path / folder).rglob("*.nbc")}
    assert len(files) == 4  # and so no file is ever written by two of them
