"""Workers here and on a Ray cluster: the same theta, also when one is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from carmen_logs import write_log, write_standing

from dsg_ros import config
from dsg_ros.errors import UserError
from dsg_ros.fleet.team import InProcess, Team
from dsg_ros.fleet.worker import Drive, Setup, Worker
from dsg_ros.learning.joint import Joint, Span
from dsg_ros.learning.leave_one_out import Together, learn_together

SETUP = Setup(config.Slam())


def learn(team: Team, drives: list[Drive]) -> Together:
    spans = [Span(number, 0, drive.blocks) for number, drive in enumerate(drives)]
    return learn_together(Joint(team.ask, SETUP.settings), spans, [d.metres for d in drives], lambda what: None)


@pytest.fixture(scope="module")
def here(logs: list[str]) -> tuple[list[Drive], Together]:
    with InProcess(SETUP) as team:
        drives = team.take(logs, lambda done, log: None)
        return drives, learn(team, drives)


def test_drives_are_what_the_logs_hold(logs: list[str], here: tuple[list[Drive], Together]) -> None:
    drives, together = here
    assert [drive.log for drive in drives] == logs
    for drive in drives:
        assert not drive.unusable
        assert drive.blocks == (drive.keyframes - 1) // SETUP.settings.learning.every_keyframes
        assert drive.metres > 40
    assert len({drive.fingerprint for drive in drives}) == 3
    names = Joint(lambda question, spans: [], SETUP.settings).names
    scale = dict(zip(names, together.estimate.deviation, strict=True))["odometry.scale"]
    assert 1 + scale == pytest.approx(1 / 1.05, abs=4 * together.estimate.sigmas[0])


def test_a_worker_says_why_a_log_is_of_no_use(tmp_path: Path) -> None:
    worker = Worker(SETUP)
    assert "nothing moves" in worker.take(0, str(write_standing(tmp_path / "still.clf"))).unusable
    assert "too short" in worker.take(1, str(write_log(tmp_path / "short.clf", scans=15))).unusable
    (tmp_path / "letter.txt").write_text("a letter to a friend\n")
    assert "not a log" in worker.take(2, str(tmp_path / "letter.txt")).unusable


def processes(team: object) -> list[int]:
    """The workers', which must not be busy."""
    import ray

    return [ray.get(actor.__ray_call__.remote(lambda worker: os.getpid())) for actor in team.actors]


@pytest.fixture
def cluster() -> Callable[[], Team]:
    pytest.importorskip("ray", reason="the extra `fleet` (Ray) is not installed")
    from dsg_ros.fleet.ray_team import LOCAL, RayTeam

    return lambda: RayTeam(SETUP, LOCAL, workers=2)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")  # of Ray's own
def test_two_workers_on_ray_find_the_same_theta_and_one_of_them_is_lost_midway(
    logs: list[str], here: tuple[list[Drive], Together], cluster: Callable[[], Team], caplog: pytest.LogCaptureFixture
) -> None:
    drives, together = here
    with cluster() as team:
        found = team.take(logs, lambda done, log: None)
        assert found == drives
        assert len(team.actors) == 2
        asked, ask = 0, team.ask

        def losing(question: object, spans: object) -> object:
            nonlocal asked
            asked += 1
            if asked == 5:
                os.kill(processes(team)[0], signal.SIGKILL)
            return ask(question, spans)

        team.ask = losing
        again = learn(team, found)
        assert len(team.actors) == 1
    assert "a worker was lost" in caplog.text
    np.testing.assert_allclose(again.estimate.used, together.estimate.used, rtol=0, atol=1e-9)
    np.testing.assert_allclose(again.estimate.covariance, together.estimate.covariance, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
def test_a_worker_lost_while_it_reads_is_replaced(
    logs: list[str], here: tuple[list[Drive], Together], cluster: Callable[[], Team]
) -> None:
    with cluster() as team:
        alive: list[int] = []

        def advance(done: float, log: str) -> None:
            if done == 0:
                alive.extend(processes(team))
            elif done == 1 and len(alive) == 2:
                os.kill(alive.pop(), signal.SIGKILL)

        assert team.take(logs, advance) == here[0]
        assert len(alive) == 1
        assert len(team.actors) == 1


@pytest.mark.filterwarnings("ignore")
def test_an_address_where_no_cluster_is(cluster: Callable[[], Team]) -> None:
    from dsg_ros.fleet.ray_team import RayTeam

    with pytest.raises(UserError, match=r"--ray 127\.0\.0\.1:1: no Ray cluster answers"), RayTeam(SETUP, "127.0.0.1:1"):
        pass
