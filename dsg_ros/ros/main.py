"""The executable `hero_node`: ready for Ctrl-C before the imports, which take most of a second.

The worker's process begins before them: its own take longer, and are half of what the start takes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from dsg_ros.ros.signals import leave_on_interrupt

if TYPE_CHECKING:
    from dsg_ros.ros.node import HeroNode


def main(args: Sequence[str] | None = None, make: Callable[[], HeroNode] | None = None) -> int:
    """Run `hero_node`; 0 after a signal, 1 when a callback failed, 2 when an argument or parameter is refused, 130
    after Ctrl-C while it still imports.
    """
    leave_on_interrupt("hero_node")
    from dsg_ros.worker import Standby

    with closing(Standby()) as standby:
        from dsg_ros.ros.node import HeroNode
        from dsg_ros.ros.running import run

        return run(args, make or partial(HeroNode, standby=standby))


if __name__ == "__main__":
    sys.exit(main())
