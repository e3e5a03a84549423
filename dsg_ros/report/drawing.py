"""The figures of a run as PNG files, drawn here or by a process of its own while the other files are written.

Matplotlib is imported by whoever draws, when it draws: it takes its time.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from dsg_ros.aside import Aside, Receive, spare_core
from dsg_ros.interface import RunResult
from dsg_ros.report import timing

if TYPE_CHECKING:
    from dsg_ros.report.evaluation import Score, Track

Images = dict[str, bytes]


class Draw(Protocol):
    """Begins one of the drawings below; calling what it returns waits for the images.

    They must be waited for in the order in which they were begun.
    """

    def __call__(self, drawing: Callable[..., Images], *arguments: Any) -> Callable[[], Images]: ...


def here(drawing: Callable[..., Images], *arguments: Any) -> Callable[[], Images]:
    """Draws when the images are waited for."""
    return partial(drawing, *arguments)


def of_run(result: RunResult) -> Images:
    """What a run tells of itself."""
    from dsg_ros.report.figures.errors import draw_correction
    from dsg_ros.report.figures.learning import draw_learning
    from dsg_ros.report.figures.map import draw_map
    from dsg_ros.report.figures.style import to_png

    images = {
        "map.png": to_png(draw_map(result)),
        "learning.png": to_png(draw_learning(result)),
        "correction.png": to_png(draw_correction(result)),
    }
    return images | of_timings(result.metrics)


def of_timings(metrics: Mapping[str, float | None]) -> Images:
    """Where the time went; nothing where none was taken."""
    from dsg_ros.report.figures.style import to_png
    from dsg_ros.report.figures.timings import draw_timings

    if not (timing.run_phases(metrics) or timing.phases(metrics)):
        return {}
    return {"timings.png": to_png(draw_timings(metrics))}


def of_errors(scores: Sequence[tuple[str, Score]], truth: Track) -> Images:
    """The comparison with a reference."""
    from dsg_ros.report.figures.errors import draw_errors
    from dsg_ros.report.figures.style import to_png

    return {"errors.png": to_png(draw_errors(scores, truth))}


@contextmanager
def drawing_aside() -> Iterator[Draw]:
    """Drawing by another process, made ready from now on, where a core is free for it."""
    if not spare_core():
        yield here
        return
    with Aside(f"{__name__}:draw") as aside:

        def begin(drawing: Callable[..., Images], *arguments: Any) -> Callable[[], Images]:
            aside.send((drawing, [_slim(each) for each in arguments]))
            return partial(next, aside)

        yield begin


def _slim(argument: Any) -> Any:
    """A result without what no figure shows."""
    return replace(argument, grid=None) if isinstance(argument, RunResult) else argument


def draw(receive: Receive) -> Iterator[Images]:
    """In the process: drawing after drawing."""
    for name in ("errors", "learning", "map", "timings"):  # ahead of the first drawing
        importlib.import_module(f"dsg_ros.report.figures.{name}")
    while True:
        drawing, arguments = receive()
        yield drawing(*arguments)
