"""The match of a scan beside the same in JAX: both sides do the same work, and find the same pose."""

from __future__ import annotations

import pytest

from benchmarks import registration


def test_the_two_sides_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration, "SCANS", 20)
    [([row], detail)] = registration.run(1)
    assert row.ours is not None
    assert row.peer is not None
    assert 0.0 < row.ours < 1000.0
    assert len(detail["numba_ms"]) == len(detail["jax_ms"]) == 20


def test_sides_that_differ_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration, "SCANS", 5)
    exact = registration._minimised
    monkeypatch.setattr(registration, "_minimised", lambda *given: exact(*given) + 1e-4)
    with pytest.raises(AssertionError, match=r"poses are .* apart"):
        list(registration.run(1))
