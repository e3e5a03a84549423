"""Small logs written on the spot, and the real recordings where they lie beside the checkout."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def recordings() -> Path:
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the recorded logs (../shared/data) are not on this machine")
    return folder


@pytest.fixture(scope="session")
def killian() -> Path:
    spec = importlib.util.find_spec("rtbdata")
    if spec is None or spec.origin is None:
        pytest.skip("the package rtb-data is not installed")
    return Path(spec.origin).parent / "data" / "killian.g2o.zip"


def flaser(
    stamp: str, pose: tuple[float, float, float] = (1.0, 2.0, 0.5), beams: int = 180, distance: float = 2.0
) -> str:
    """A FLASER line: all beams at ``distance`` but the second, which has no return."""
    ranges = [f"{distance:.2f}"] * beams
    ranges[1] = "81.91"
    numbers = " ".join(f"{value:.6f}" for value in (*pose, *pose))
    return f"FLASER {beams} {' '.join(ranges)} {numbers} {stamp} nohost 0.5"


def robotlaser(
    stamp: str, robot: tuple[float, float, float], laser: tuple[float, float, float], distance: float = 3.0
) -> str:
    """A ROBOTLASER1 line of 181 beams from -90 deg, the last one without return (50 m), two remissions."""
    ranges = [f"{distance:.2f}"] * 180 + ["50.00"]
    numbers = " ".join(f"{value:.6f}" for value in (*laser, *robot))
    head = "ROBOTLASER1 0 -1.570796 3.141593 0.017453 50.0 0.01 0 181"
    return f"{head} {' '.join(ranges)} 2 7 8 {numbers} 0.4 -0.1 0 0 0 {stamp} host 1.5"


@pytest.fixture
def lines() -> tuple[Callable[..., str], Callable[..., str]]:
    """The writers of FLASER and ROBOTLASER1 lines."""
    return flaser, robotlaser


@pytest.fixture
def carmen(tmp_path: Path) -> Path:
    """Four scans on a straight line; the third one's stamp lies before the second's."""
    stamps = ["100.000001", "100.500000", "100.250000", "101.000000"]
    scans = [flaser(stamp, (0.5 * i, 0.0, 0.1 * i), distance=2.0 + i) for i, stamp in enumerate(stamps)]
    path = tmp_path / "small.clf"
    path.write_text("# a comment\nPARAM robot_frontlaser_offset 0.15 nohost 0\n" + "\n".join(scans) + "\n")
    return path
