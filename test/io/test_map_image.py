"""map.pgm and map.yaml, read as Nav2's map_server reads them."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from PIL import Image

from dsg_ros.errors import UserError
from dsg_ros.interface import OccupancyGrid
from dsg_ros.io import map_image


def map_server(path):
    """(cells, origin, resolution) by nav2_map_server's rule for mode trinary (map_io.cpp, loadMapFromFile).

    The image's first row becomes the grid's last; ``occ`` is the darkness of a pixel, unless negated.
    """
    told = yaml.safe_load(path.read_text())
    assert set(told) == {"image", "mode", "resolution", "origin", "negate", "occupied_thresh", "free_thresh"}
    assert told["mode"] == "trinary"
    with Image.open(path.parent / told["image"]) as image:
        assert image.format == "PPM"
        assert image.mode == "L"
        shade = np.asarray(image) / 255.0
    occ = shade if told["negate"] else 1.0 - shade
    cells = np.where(occ > told["occupied_thresh"], 100, np.where(occ < told["free_thresh"], 0, -1))
    assert len(told["origin"]) == 3
    assert told["origin"][2] == 0.0
    return cells[::-1], tuple(told["origin"][:2]), told["resolution"]


@pytest.mark.parametrize("resolution", [0.05, 0.1, 1 / 3])
def test_the_grid_comes_back_by_the_rule_of_map_server(tmp_path, resolution):
    cells = np.random.default_rng(1).choice(np.array([-1, 0, 100], np.int8), (7, 12))
    cells[0, 0], cells[-1, 0] = 100, 0  # upside down would be seen
    grid = OccupancyGrid(cells, (-129, 64), resolution)
    map_image.write_map(tmp_path / "map.pgm", grid)
    read, origin, size = map_server(tmp_path / "map.yaml")
    np.testing.assert_array_equal(read, cells)
    assert origin == pytest.approx(grid.origin, abs=1e-6)
    assert size == pytest.approx(resolution, rel=1e-8)


def test_the_yaml_names_the_image_beside_it(tmp_path):
    map_image.write_map(tmp_path / "floor2.pgm", OccupancyGrid(np.zeros((1, 1), np.int8), (0, 0), 0.05))
    assert yaml.safe_load((tmp_path / "floor2.yaml").read_text())["image"] == "floor2.pgm"


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(UserError, match=r"map\.pgm"):
        map_image.write_map(tmp_path / "absent" / "map.pgm", OccupancyGrid(np.zeros((1, 1), np.int8), (0, 0), 0.05))
