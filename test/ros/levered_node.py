"""hero_node with the small pipeline that has found where its sensor sits."""

import sys

from dsg_ros.ros.main import main
from dsg_ros.ros.node import HeroNode


class LeveredNode(HeroNode):
    pipeline = "fake_pipeline:Levered"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], LeveredNode))
