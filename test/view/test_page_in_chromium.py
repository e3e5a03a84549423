"""The page in a real browser: voxels and curves arrive, are really drawn, and change.

With ``-s`` it tells how long that took.  Headless Chromium draws on the processor where there is no GPU, beside
whatever else runs: the limits here only say that it does not hang.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from chromium import Chromium, until
from view_estimates import estimate, voxels

from dsg_ros.view.update import Health
from dsg_ros.view.web import WebView

VOXELS = 50_000
PATIENCE = 60.0
pytestmark = pytest.mark.slow


def ring(count: int, first: int = 0) -> np.ndarray:
    """Points around a ring of 120 m by 80 m, 3 m high."""
    rng = np.random.default_rng(first)
    angle = rng.uniform(0.0, 2 * np.pi, count)
    around = np.column_stack([60 * np.cos(angle), 40 * np.sin(angle), 1.5 + 0 * angle])
    return around + rng.normal(0.0, [4.0, 4.0, 0.5], (count, 3))


@pytest.fixture(scope="module")
def view() -> Iterator[WebView]:
    """A map of 50,000 voxels, and curves."""
    view = WebView("127.0.0.1", 0, lambda level, text: None)
    view.start()
    assert view.wait(PATIENCE)
    view.take(estimate(40, voxels(ring(VOXELS))))
    for keyframes in range(41, 60):
        view.take(estimate(keyframes, scale=1.0 + 0.01 * np.sin(keyframes)))
    view.tell(Health(1.0, {"scans in": 10.0}, {"queue_full": 0}))
    time.sleep(1.0)
    yield view
    view.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with Chromium() as browser:
        yield browser


def test_the_map_and_the_curves_are_drawn_and_move(view, browser, tmp_path):
    asked = browser.open(view.url)
    until(lambda: browser.points() == VOXELS, "picture of the map", PATIENCE)
    first = next(at for at, points in browser.history() if points >= VOXELS) - asked
    curves = until(lambda: len(browser.curves()) == 2 and browser.curves(), "two charts", PATIENCE)
    assert all(inked > 200 for inked, _ in curves)
    assert "odometry.scale" in browser.text()
    assert "50000 voxels" in browser.text()

    delays = []
    for step in range(1, 6):
        total, began = VOXELS + 500 * step, time.time()
        view.take(estimate(60 + step, voxels(ring(500, step), first=total - 500)))
        until(lambda total=total: browser.points() == total, f"{total} voxels", PATIENCE)
        delays.append(next(at for at, points in browser.history() if points == total) - began)
    until(lambda: browser.curves()[1] != curves[1], "curve that moves", PATIENCE)
    until(lambda: "52500 voxels" in browser.text(), "new figures", PATIENCE)
    print(f"\nfirst picture {first:.2f} s, update {np.median(delays):.2f} s (longest {max(delays):.2f} s)", end=" ")

    browser.click("Inputs")
    until(lambda: "rates" in browser.text() and "dropped" in browser.text(), "the other tab", PATIENCE)
    picture = tmp_path / "page.png"
    browser.screenshot(picture)
    assert blue(picture) > 5000


def blue(picture: Path) -> int:
    """Pixels of a PNG that are blue, as voxels are, left of the panel."""
    from PIL import Image

    pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)[:, :800]
    return int(np.sum(pixels[..., 2] - pixels[..., 0] > 30))


def test_nothing_is_asked_of_any_other_machine(view, browser):
    foreign = [url for url in browser.requested if not url.startswith((view.url, "data:", "blob:", "about:"))]
    foreign = [url for url in foreign if not url.startswith(view.url.replace("http", "ws"))]
    assert browser.requested
    assert foreign == []


def test_a_new_map_replaces_the_old_one(view, browser):
    view.clear()
    view.take(estimate(5, voxels(ring(1000, 77))))
    until(lambda: browser.points() == 1000, "the new map alone", PATIENCE)
