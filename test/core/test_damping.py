"""The step logic of Levenberg-Marquardt: the host's and the jitted loop's are the same."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from dsg_ros.core.native import damping as native
from dsg_ros.core.solvers.damping import judge

COSTS = (0.0, 1e-20, 1.0, 1e6, np.inf)
SHARES = (-1.0, -1e-14, 0.0, 1e-14, 1e-12, 1e-3, 0.3, 0.7, 0.99, np.inf, np.nan)
"""Of the cost: by how much a step lowers it, and by how much it promised to."""
DAMPINGS = (1e-9, 1e-3, 0.1, 5e7)
TOLERANCE = 1e-9


def test_the_host_and_the_jitted_loop_judge_alike() -> None:
    cost, gain, promise, damping = (part.ravel() for part in np.meshgrid(COSTS, SHARES, SHARES, DAMPINGS))
    size = np.where(np.isfinite(cost) & (cost > 0), cost, 1.0)
    with np.errstate(invalid="ignore"):  # infinite less infinite
        trial = cost - gain * size
    given = (cost, trial, promise * size, damping, np.full(len(cost), native.GROWTH))
    expected = judge(*given, TOLERANCE)
    found = [native.judge(*numbers, TOLERANCE) for numbers in zip(*given, strict=True)]
    for name in native.Step._fields:
        assert_allclose([getattr(step, name) for step in found], getattr(expected, name), err_msg=name)
    last = [native.converges(*numbers, TOLERANCE) for numbers in zip(cost, given[2], damping, strict=True)]
    assert_array_equal(last, expected.converged)
    assert len({(step.accept, step.converged, step.stuck) for step in found}) == 5


def test_a_step_as_promised_eases_and_one_that_is_refused_is_damped_ever_more() -> None:
    eased = native.judge(1.0, 0.5, 0.5, 1e-3, native.GROWTH, TOLERANCE)
    assert eased.accept
    assert eased.damping == native.EASED * 1e-3
    refused = native.judge(1.0, 1.5, 0.5, 1e-3, native.GROWTH, TOLERANCE)
    again = native.judge(1.0, 1.5, 0.5, refused.damping, refused.growth, TOLERANCE)
    assert not refused.accept
    assert refused.damping == native.GROWTH * 1e-3
    assert again.damping == 2 * native.GROWTH * refused.damping
