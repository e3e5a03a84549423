"""The gradient of every loss is that of central differences."""

from __future__ import annotations

import pytest

from benchmarks import gradients


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_gradients_of_all_losses_are_those_of_differences():
    rows = [row for some, _ in gradients.run() for row in some]
    assert len(rows) == 8 + 3 + 2 * len(gradients.KERNELS) + 2
    assert not [(row.graph, row.what, row.ours) for row in rows if row.reached is False]
    assert sum(row.goal == gradients.EXACT for row in rows) == 8 + 3 + len(gradients.KERNELS) + 2


@pytest.mark.parametrize("family", [gradients.tutorial, gradients.recorded])
def test_gradients_of_losses_that_are_quickly_compiled(family):
    assert all(row.reached for row in family())
