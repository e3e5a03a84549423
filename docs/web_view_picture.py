"""The picture of docs/web_view.md: ``python docs/web_view_picture.py LOG PNG`` maps LOG and photographs the web view.

Needs a Chromium on the PATH or in DSG_ROS_CHROMIUM, as the test of the page does.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "test"))

from chromium import Chromium, until

PATIENCE = 900.0
"""Longest wait [s] for the map: the first run on a machine compiles for minutes."""


def main(log: str, picture: str) -> None:
    """Run LOG with the view until the map is refined, then take the picture."""
    # At a terminal the page stays until Ctrl-C.
    terminal, stdin = os.openpty()
    with tempfile.TemporaryDirectory() as out:
        words = ["run", log, "--out", str(Path(out) / "run"), "--view", "web", "--set", "view_port=0"]
        run = subprocess.Popen(
            [sys.executable, "-m", "dsg_ros", *words], stdin=stdin, stdout=subprocess.PIPE, text=True
        )
        assert run.stdout is not None
        stays = next(line for line in run.stdout if "the web view stays at" in line)
        url = re.search(r"http://\S+", stays)
        assert url is not None
        with Chromium(1500, 1000) as browser:
            browser.open(url.group())
            until(browser.points, "picture of the map", PATIENCE)
            until(lambda: any(inked > 200 for inked, _ in browser.curves()), "curves", PATIENCE)
            time.sleep(5.0)
            browser.evaluate("document.querySelector('.mantine-Notification-closeButton')?.click()")
            time.sleep(2.0)
            browser.screenshot(Path(picture))
        run.send_signal(signal.SIGINT)
        run.wait(30.0)
    os.close(terminal)
    os.close(stdin)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
