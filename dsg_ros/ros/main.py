"""The executable `hero_node`: ready for Ctrl-C before the imports, which take most of a second.

The worker's process begins before them: its own take longer, and are half of what the start takes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
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
    with ExitStack() as ends:
        if make is None:
            from dsg_ros.worker.standby import Standby

            standby = ends.enter_context(closing(Standby()))
            from dsg_ros.ros.node import HeroNode

            make = partial(HeroNode, standby=standby)
        from dsg_ros.ros.running import run

        return run(args, make)


if __name__ == "__main__":
    sys.exit(main())
