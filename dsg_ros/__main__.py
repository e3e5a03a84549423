"""``python -m dsg_ros``."""

import sys

from dsg_ros.cli import main

if __name__ == "__main__":
    sys.exit(main())
