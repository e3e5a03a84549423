"""hero_node with the small pipeline of `fake_pipeline`, for tests of what the node itself does."""

import sys

from dsg_ros.ros.main import main
from dsg_ros.ros.node import HeroNode


class FakeNode(HeroNode):
    pipeline = "fake_pipeline:Counting"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], FakeNode))
