"""hero_node with a small pipeline that has no occupancy grid to tell."""

import sys

from dsg_ros.ros.main import main
from dsg_ros.ros.node import HeroNode


class GridlessNode(HeroNode):
    pipeline = "fake_pipeline:Gridless"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], GridlessNode))
