"""hero_node with the small pipeline, whose first activation fails in the middle."""

import sys

from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn

from dsg_ros.ros.main import main
from dsg_ros.ros.node import HeroNode
from dsg_ros.ros.transitions import told


class FaultyNode(HeroNode):
    pipeline = "fake_pipeline:Counting"
    failed = False

    @told
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = super().on_activate(state)
        if not self.failed:
            self.failed = True
            raise RuntimeError("no activation today")
        return result


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], FaultyNode))
