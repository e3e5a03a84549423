"""Gradients of losses are those of differences: the quickly compiled ones; `python -m benchmarks gradients` has all."""

from __future__ import annotations

import pytest

from benchmarks import gradients


@pytest.mark.parametrize("family", [gradients.tutorial, gradients.recorded])
def test_gradients_are_those_of_differences(family):
    rows = list(family())
    assert rows
    assert not [(row.graph, row.what, row.ours) for row in rows if not row.reached]
