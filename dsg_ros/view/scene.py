"""The map in three dimensions: voxels, trajectories before and after, loop closures, the robot."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import viser
from numpy.typing import NDArray

from dsg_ros import poses
from dsg_ros.interface import Path
from dsg_ros.view.update import Sample, Update
from dsg_ros.voxel_colours import Colouring
from dsg_ros.voxel_store import VoxelStore

MAPPED = (31, 105, 196)
ODOMETRY = (230, 126, 34)
LOOPS = (22, 160, 92)
GRID = (205, 205, 205)
_LIFT = 0.05
"""Lines are drawn this much [m] above the poses, so that a floor of voxels does not hide them."""


class Scene:
    """What is drawn of the updates so far.  ``chunk`` [m] is the edge of the cubes of space that voxels are sent in."""

    def __init__(self, scene: viser.SceneApi, chunk: float) -> None:
        self._scene = scene
        self._store = VoxelStore(chunk)
        self._colouring: Colouring = "points"
        self._chunks: dict[int, viser.PointCloudHandle] = {}
        # Nothing here casts shadows, and without a GPU every pass over the window takes a tenth of a second and more:
        # hence also a grid of lines, where viser's fills the window.
        scene.configure_default_lights(cast_shadow=False)
        self._grid = self._line("grid", GRID, 1.0)
        self._gridded: tuple[float, float, float, float] | None = None
        self._mapped = self._line("mapped", MAPPED, 3.0)
        self._odometry = self._line("odometry", ODOMETRY, 2.0)
        self._loops = self._line("loops", LOOPS, 1.5)
        self._robot = scene.add_frame("/map/robot", axes_length=1.0, axes_radius=0.06, visible=False)
        self._forget()

    def _forget(self) -> None:
        self._store.clear()
        self._map_from_odom: NDArray[np.float64] | None = None
        self._driven: list[NDArray[np.float64]] = []
        self.bounds: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
        """Lowest and highest corner (3,) of what is drawn; None: nothing yet."""

    @property
    def voxels(self) -> int:
        """How many are drawn."""
        return len(self._store)

    def show(self, update: Update) -> None:
        """Draw what changed."""
        if update.restarted:
            self._restart()
        if update.voxels is not None:
            if update.whole:
                self._store.clear()
            self._store.update(update.voxels)
            self._draw_voxels()
        if update.samples:
            self._draw_odometry(update.samples)
        if update.path is not None:
            self._draw_path(update.path)
        if update.pose is not None:
            self._robot.position, self._robot.wxyz = update.pose[:3], update.pose[[6, 3, 4, 5]]
            self._robot.visible = True
        self._draw_grid()

    def colour(self, colouring: Colouring) -> None:
        """Colour voxels by something else."""
        self._colouring = colouring
        self._draw_voxels()

    def show_parts(self) -> dict[str, Callable[[bool], None]]:
        """What can be shown and hidden, by name."""

        def switch(handle: viser.SceneNodeHandle) -> Callable[[bool], None]:
            return lambda on: setattr(handle, "visible", on)

        return {
            "trajectory as mapped": switch(self._mapped),
            "by odometry alone": switch(self._odometry),
            "loop closures": switch(self._loops),
        }

    def _restart(self) -> None:
        self._forget()
        self._draw_voxels()
        self._gridded = None
        for line in (self._grid, self._mapped, self._odometry, self._loops):
            line.points = np.zeros((0, 2, 3), np.float32)
        self._robot.visible = False

    def _draw_voxels(self) -> None:
        scale = self._store.coloured(self._colouring)
        changes = self._store.take_changes()
        edge = self._store.size or 0.1
        for chunk in changes:
            handle = self._chunks.get(chunk.id)
            if not len(chunk.means):
                if handle is not None:
                    handle.remove()
                    del self._chunks[chunk.id]
                continue
            painted = np.rint(255 * chunk.colours(self._colouring, scale)[:, :3]).astype(np.uint8)
            if handle is None:
                self._chunks[chunk.id] = self._scene.add_point_cloud(
                    f"/map/voxels/{chunk.id}",
                    chunk.means,
                    painted,
                    point_size=edge,
                    point_shape="square",
                    point_shading="flat",
                    precision="float32",  # half a float has steps of 6 cm at 100 m
                )
            else:
                handle.points, handle.colors = chunk.means, painted
            self._stretch(chunk.means)

    def _draw_odometry(self, samples: tuple[Sample, ...]) -> None:
        """Where the robot would be by its odometry alone, laid on the first keyframe of the map."""
        if self._map_from_odom is None:
            self._map_from_odom = poses.compose(samples[0].pose, poses.inverse(samples[0].odometry))
        told = np.array([sample.odometry for sample in samples])
        self._driven.extend(poses.compose(self._map_from_odom, told)[:, :3])
        self._draw(self._odometry, np.array(self._driven))

    def _draw_path(self, path: Path) -> None:
        places = path.poses[:, :3]
        self._draw(self._mapped, places)
        self._loops.points = lifted(places[path.loops])

    def _draw(self, line: viser.LineSegmentsHandle, places: NDArray[np.float64]) -> None:
        line.points = lifted(np.stack([places[:-1], places[1:]], axis=1))
        if len(places):
            self._stretch(places)

    def _draw_grid(self) -> None:
        """Lines below the map, a round number of metres apart."""
        if self.bounds is None:
            return
        low, high = self.bounds
        step = 10.0 ** np.floor(np.log10(max(float((high - low)[:2].max()), 1.0)) - 0.3)
        x0, y0 = (float(v) for v in np.floor(low[:2] / step) * step)
        x1, y1 = (float(v) for v in np.ceil(high[:2] / step) * step)
        if (x0, y0, x1, y1) == self._gridded:
            return
        self._gridded = x0, y0, x1, y1
        xs, ys, z = np.arange(x0, x1 + step / 2, step), np.arange(y0, y1 + step / 2, step), float(low[2])
        along_y = [[[x, y0, z], [x, y1, z]] for x in xs]
        along_x = [[[x0, y, z], [x1, y, z]] for y in ys]
        self._grid.points = np.array([*along_y, *along_x], np.float32)

    def _line(self, name: str, colour: tuple[int, int, int], pixels: float) -> viser.LineSegmentsHandle:
        nothing = np.zeros((0, 2, 3), np.float32)
        return self._scene.add_line_segments(
            f"/map/{name}", nothing, colour, thickness=pixels, thickness_units="screen"
        )

    def _stretch(self, places: NDArray[np.floating]) -> None:
        low, high = places.min(axis=0).astype(float), places.max(axis=0).astype(float)
        if self.bounds is not None:
            low, high = np.minimum(low, self.bounds[0]), np.maximum(high, self.bounds[1])
        self.bounds = low, high


def lifted(places: NDArray[np.floating]) -> NDArray[np.float32]:
    """Ends of lines (n, 2, 3), as they are drawn."""
    return (places + np.array([0.0, 0.0, _LIFT])).astype(np.float32).reshape(-1, 2, 3)
