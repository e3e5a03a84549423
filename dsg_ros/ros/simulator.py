"""The executable `hero_simulator`: ready for Ctrl-C before the imports, which take most of a second."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dsg_ros.ros.signals import leave_on_interrupt


def main(args: Sequence[str] | None = None) -> int:
    """Run the simulator until a signal; 0, 1 when a callback failed, 2 when an argument or parameter is refused, 130
    after Ctrl-C while it still imports.
    """
    leave_on_interrupt("hero_simulator")
    from dsg_ros.ros.simulating import run

    return run(args)


if __name__ == "__main__":
    sys.exit(main())
