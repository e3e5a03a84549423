"""Calibrated odometry, used for every scan and learned from every block of keyframes: what the pipeline calls."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from numpy.typing import NDArray

from dsg_ros import config, poses
from dsg_ros.core.theta import SPECS, Theta, specs, to_float64
from dsg_ros.interface import Frame, LearningStep, OdometryTrack, Parameter, Told
from dsg_ros.learning import guards, leg_loss, losses, parameters
from dsg_ros.learning.at_once import begun
from dsg_ros.learning.block import Block, Link, make_block, pairs_of
from dsg_ros.learning.change import Change, ChangeDetector
from dsg_ros.learning.history import History
from dsg_ros.learning.increments import IncrementModel, Moment, widened
from dsg_ros.learning.learner import Accumulator, minimiser
from dsg_ros.learning.leg import Leg
from dsg_ros.learning.leg_work import LegWork, Trial
from dsg_ros.learning.links import Links
from dsg_ros.learning.losses import Score
from dsg_ros.learning.programs import map_gained, own_at, score_at, theta_at
from dsg_ros.learning.proposal import Proposal, nothing_known
from dsg_ros.learning.told import told_noise, told_numbers
from dsg_ros.state import State, nested, packed, part, unpacked

if TYPE_CHECKING:
    from dsg_ros.learning.noise import NoiseLearner

Vector = NDArray[np.float64]

RELINEARISE_BEYOND, RELINEARISE_AT_MOST = 0.02, 4
"""Blocks are linearised again when theta has moved by this many prior deviations, at most this many an update."""

TOLERATED = 0.01
"""An update may raise the held-out loss by this share: else thetas that are equally good would take turns."""

_log = logging.getLogger(__name__)


class Calibration:
    """``parameters`` are starting values by name; `UserError` for names or values that theta cannot have.

    Numbers (K,) below are deviations of the learned numbers from where they started, in the scale of theta's leaves.
    """

    def __init__(self, settings: config.Slam, parameters_given: Sequence[Parameter] = ()) -> None:
        self._settings = settings
        self._learned = parameters.chosen(settings.learning.parameters)
        self._specs = specs(self._learned)
        self._names = tuple(spec.name for spec in self._specs)
        self._start = to_float64(parameters.starting_theta(parameters_given))
        self._given = parameters.given(parameters_given, self._learned)
        self._start_vector = parameters.numbers(self._start, self._learned)
        self._pairs = pairs_of(settings.learning.every_keyframes)
        prior = np.array([spec.prior_sigma for spec in self._specs])
        self._accumulator = Accumulator(prior, self._cost, settings.learning.kept_blocks)
        self._noise = _noise_learner(self._start, settings.learning) if settings.learning.noise else None
        self._gate = guards.Gate(self._specs, settings.learning)
        self._detector = ChangeDetector(settings.learning, prior)
        self._changed_at = 0.0
        self._on = settings.learning.enabled
        self._used = np.zeros(len(self._specs))
        self._proposal = nothing_known(prior, np.asarray(self._start.odometry_noise))
        self._step: Callable[[], None] | None = None
        self._coming: Callable[[], Proposal] | None = None
        self._at_leisure = False
        self._history = History()
        self.counts = {"links_refused": 0, "blocks_refused": 0, "blocks_forgotten": 0, "updates_rolled_back": 0}
        self.counts["changes_detected"] = 0
        self._links = Links(settings, self.counts)
        alone = settings.learning.teacher == "scans"
        self._legs = None if alone else LegWork(self._names, prior, self._trial, self.counts)
        self._use(self._used)

    @property
    def theta(self) -> Theta:
        """Theta as used now: float64 leaves."""
        return self._theta

    @property
    def names(self) -> tuple[str, ...]:
        """The numbers that are learned, K of them."""
        return self._names

    def information(self) -> NDArray[np.float64]:
        """What is known of them (K, K), prior included: of their deviations from where they started."""
        self._wait()
        information, _ = self._accumulator.normal()
        return np.array(information, np.float64)

    @property
    def history(self) -> tuple[LearningStep, ...]:
        """The newest outer updates, oldest first."""
        return self._history.steps

    def losses(self) -> dict[str, float]:
        """Held-out loss of the newest block before and after the newest update; empty before the first."""
        return self._history.losses()

    def there(self, frame: Frame, odometry: Vector) -> Vector:
        """Raw odometry (7,) at the moment of a scan, which has it at its stamp as ``odometry`` (7,)."""
        return self._model.there(frame.odometry, frame.stamp, odometry)

    def moment(self, frame: Frame, there: Vector) -> Moment:
        """The same, ``there`` (7,), with its velocity: what increments to the next keyframe are made of."""
        return self._model.moment(frame.odometry, frame.stamp, there, frame.sweep)

    def corrected(self, track: OdometryTrack, stamp: int) -> OdometryTrack:
        """How the base really moved around the moment of a scan that is stamped ``stamp`` [ns]."""
        return self._model.corrected(track, stamp)

    def predict(self, increment: Vector, seconds: float) -> tuple[Vector, Vector]:
        """Calibrated increment (7,) of a measured one (7,) over ``seconds``, and its deviations (6,) [m, rad], as the
        odometry's noise and, while it is learned, theta make them.
        """
        calibrated, sigmas = self._model.predict(increment, seconds)
        return calibrated, sigmas if self._unsure is None else widened(sigmas, increment, seconds, self._unsure)

    def parameters(self) -> tuple[Parameter, ...]:
        """Every learned number as told to the world, then those that were given and are not learned."""
        return self._parameters

    def switch(self, on: bool) -> None:
        """Learn from here on, or keep theta as it is used now."""
        if on is not self._on:
            self.settle()
            self._on = on
            self.interrupt()
            self._use(self._used)

    def interrupt(self) -> None:
        """What comes next does not follow what came before: the block begun is dropped, and nothing is wrong."""
        self._links.interrupt()

    def state(self) -> State:
        """As `dsg_ros.state` says: theta, what is known of it, the block and the leg begun, and the history."""
        coming = self._wait()
        facts = {
            "on": self._on, "counts": self.counts, "names": self._names, **self._links.facts(),
            "changed_at": self._changed_at, "at_leisure": self._at_leisure,
        }  # fmt: skip
        found = {
            "used": self._used.copy(), "facts": packed(facts), "history": self._history.written(),
            **nested(proposal=self._proposal.state(), coming=coming.state() if coming else {}),
            **nested(links=self._links.state(), accumulator=self._accumulator.state(), gate=self._gate.state()),
            **nested(change=self._detector.state(), leg=self._legs.state() if self._legs else {}),
            **{f"start.{name}": np.asarray(getattr(self._start, name)) for name in SPECS},
        }  # fmt: skip
        return found | (nested(noise=self._noise.state()) if self._noise else {})

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take a state over, of a calibration of the same numbers; ValueError or KeyError for another one."""
        self._wait()
        facts = unpacked(state["facts"])
        if tuple(facts["names"]) != self._names:
            raise ValueError(f"learned are {', '.join(facts['names'])}, not {', '.join(self._names)}")
        self._on = facts["on"]
        self.counts.update(facts["counts"])
        self._links.restore(part(state, "links"), facts)
        self._changed_at = facts["changed_at"]
        self._start = to_float64(self._start.replace(**{name: np.array(state[f"start.{name}"]) for name in SPECS}))
        self._start_vector = parameters.numbers(self._start, self._learned)
        self._proposal = Proposal.of(part(state, "proposal"))
        coming = Proposal.of(told) if (told := part(state, "coming")) else None
        self._coming = (lambda: coming) if coming else None
        self._at_leisure = facts["at_leisure"]
        self._accumulator.restore(part(state, "accumulator"), self._still_block(planar=True))
        self._gate.restore(part(state, "gate"))
        self._detector.restore(part(state, "change"))
        if self._noise:
            self._noise.restore(part(state, "noise"))
        self._history.read(state["history"])
        self._use(np.array(state["used"]))
        if self._legs:
            self._legs.restore(part(state, "leg"), self._start, self._used, self._proposal_to_come())

    def _still_block(self, planar: bool) -> Block:
        """A block in which nothing moves, of the shape that all have."""
        unit = np.diag([1.0, 1.0, 0.0, 0.0, 0.0, 1.0]) if planar else np.eye(6)
        still = Link(poses.IDENTITY, 0.1, poses.IDENTITY, unit)
        return self._block([still] * self._settings.learning.every_keyframes)

    def warm_up(self, planar: bool) -> None:
        """Compile everything.  ``planar``: the scans to come are from a LaserScan."""
        self._links.choose(planar)
        block = self._still_block(planar)
        self._cost(block, self._used)
        self._own(block, self._used)
        self._widening()
        if self._noise:
            _noise_learner(self._start, self._settings.learning).step(block, self._theta)

    def hear(self, told: Sequence[Told], now: int, track: OdometryTrack | None = None) -> None:
        """Poses or positions from elsewhere, for odometry to be held to, as `Links.hear` takes them."""
        self._links.hear(told, now, track)

    def add(self, key: int, link: Link, start: int = 0, end: int = 0) -> None:
        """What is known between keyframes ``key - 1`` and ``key``, as `Links.add` takes it, while learning is on."""
        if self._on:
            self._links.add(key, link, start, end, self._model.predict)

    def step(self, stamp: int, travel: float) -> LearningStep | None:
        """Outer updates over all complete blocks, after ``travel`` metres; the newest, or None where there is none.

        What the next theta is to be is worked out beside what comes, and taken over by `settle`, or the step after.  A
        leg of positions, which takes longer, is worked out until the step after, and so is what theta it makes.
        """
        if not (self._on and len(self._specs)):
            return None
        last = self._end_leg(stamp, travel)
        while links := self._links.block():
            last = self._update(self._block(links), any(link.moves for link in links), stamp, travel) or last
        return self._begin_legs(stamp, travel) or last

    def begin(self, stamp: int, travel: float, timed: Callable[[], AbstractContextManager[None]]) -> None:
        """`step`, ``timed``, beside what comes; until `end` nothing else is to be asked of this."""

        def step() -> None:
            with timed():
                self.step(stamp, travel)

        self._step = begun(step)

    def end(self) -> None:
        """Have the step that was begun end, and take over what it works out, unless that comes at leisure."""
        self._join()
        if self.unsettled:
            self.settle()

    def _join(self) -> None:
        step, self._step = self._step, None
        if step is not None:
            step()

    def conclude(self, stamp: int, travel: float) -> None:
        """Take over all that was begun, while learning is on: nothing more comes."""
        if self._on:
            self._end_leg(stamp, travel)
            self._begin_legs(stamp, travel)
            self._end_leg(stamp, travel)
            self.settle()

    def _begin_legs(self, stamp: int, travel: float) -> LearningStep | None:
        """Begin the legs that are complete; the newest update of those that others wait for: several are short ones."""
        last = None
        while self._legs and (leg := self._links.leg()):
            last = self._end_leg(stamp, travel) or last
            self._legs.begin(leg, self._start, self._used, self._proposal_to_come())
        return last

    def _end_leg(self, stamp: int, travel: float) -> LearningStep | None:
        """The update of the leg that was begun, if one was."""
        if self._legs is None or not self._legs.begun:
            return None
        self.settle()
        if (found := self._legs.outcome()) is None:
            return None
        step = self._judged(found[0], found[1], False, stamp, travel)
        self._at_leisure = step is not None
        return step

    def _proposal_to_come(self) -> Callable[[], Proposal]:
        known = self._proposal
        return self._coming or (lambda: known)

    @property
    def unsettled(self) -> bool:
        """Whether `settle` has something to take over before the next step, or `end` has one to wait for."""
        return self._step is not None or (self._coming is not None and not self._at_leisure)

    def settle(self) -> None:
        """Take over what the last step has worked out, if that was not done yet."""
        if self._coming is None:
            return
        self._proposal, self._coming, self._at_leisure = self._coming(), None, False
        self._start = self._start.replace(odometry_noise=self._proposal.noise)
        self._use(self._used)

    def _wait(self) -> Proposal | None:
        """What the last step works out, once it has: until then the accumulated blocks are another thread's."""
        self._join()
        return self._coming() if self._coming else None

    def _update(self, block: Block, moves: bool, stamp: int, travel: float) -> LearningStep | None:
        """Judge the last update by this block, in which something ``moves`` or nothing; then learn from it, if anything
        was seen in it.
        """
        if not block.directions.any():
            return None
        self.settle()
        return self._judged(block, self._trial(block, self._start, self._used, self._proposal), moves, stamp, travel)

    def _trial(self, block: Block | Leg, start: Theta, used: Vector, proposal: Proposal) -> Trial:
        own = begun(partial(self._own, block, proposal.estimate, start))
        after = begun(partial(self._cost, block, proposal.candidate, start))
        return Trial(self._cost(block, used, start), after(), *own())

    def _judged(self, block: Block | Leg, trial: Trial, moves: bool, stamp: int, travel: float) -> LearningStep | None:
        """Keep the last update or take it back by the ``trial`` of this block, then learn from it.

        A block in which nothing ``moves`` says nothing of how noise grows, nor does a leg of positions.
        """
        before, after, own, diluted = trial
        if not np.isfinite(before.cost):
            self.counts["blocks_refused"] += 1
            _log.warning("learning: the block of keyframes that ends at %.1f m has no finite loss; not used", travel)
            return None
        wrong = guards.within_bounds(self._proposal.candidate, self._start_vector, self._specs)
        if wrong:
            _log.warning("learning: update refused, %s", wrong)
        accepted = not wrong and bool(after.loss <= before.loss * (1 + TOLERATED))
        if accepted:
            self._use(self._proposal.candidate)
        else:
            self.counts["updates_rolled_back"] += 1
            if not after.cost - before.cost < self._settings.learning.poisoned and self._accumulator.recent:
                self._accumulator.drop_newest()
                self.counts["blocks_forgotten"] += 1
                _log.warning("learning: the block before the one that ends at %.1f m misleads; forgotten", travel)
        information, _ = self._accumulator.normal()
        change = None
        if self._accumulator.add(block, self._proposal.estimate, own):
            change = self._detector.add(np.asarray(own.gradient), diluted, np.asarray(own.hessian), information)
        else:
            self.counts["blocks_refused"] += 1
        told = self._reopen(change, travel) if change else ""
        self._tell()  # before the noise's learner is another thread's
        noise = np.asarray(self._start.odometry_noise)
        learn_noise: Callable[[], Vector] = lambda: noise  # noqa: E731 - what it is without a learner of it
        if self._noise and moves and isinstance(block, Block):
            learn_noise = partial(self._noise.step, block, self._theta)
        self._coming = begun(partial(self._proposed, travel, learn_noise))
        step = LearningStep(
            stamp, travel, float(before.loss), float(after.loss), accepted, self._parameters, float(before.nis), told
        )
        self._history.add(step)
        return step

    def _reopen(self, change: Change, travel: float) -> str:
        """The robot has changed: what was known stays the mean, but what has changed is known no better than that."""
        opened = np.where(change.sure, change.step**2 + change.sigmas**2, 0.0)
        known = np.linalg.inv(self._accumulator.normal()[0])
        self._accumulator.reopen(self._used, known + np.diag(opened), change.blocks)
        self._detector.restart()
        self._changed_at = travel
        self.counts["changes_detected"] += 1
        rows = zip(self._names, change.step, change.sigmas, change.sure, strict=True)
        told = ", ".join(f"{name} by {by:+.4f} +- {sigma:.4f}" for name, by, sigma, sure in rows if sure)
        _log.warning("learning: the robot has changed at %.1f m: %s; learned anew", travel, told)
        return told

    def _proposed(self, travel: float, learn_noise: Callable[[], Vector]) -> Proposal:
        """From everything learned so far; in another thread, so nothing is changed but the accumulated blocks, and what
        the gate and the learner of noise remember.
        """
        noise, centre = begun(learn_noise), self._accumulator.centre
        everything = np.ones(len(self._specs), bool)
        estimate = minimiser(*self._accumulator.normal(), everything, centre)
        if self._accumulator.relinearise(estimate, RELINEARISE_BEYOND, RELINEARISE_AT_MOST):
            estimate = minimiser(*self._accumulator.normal(), everything, centre)
        information, right = self._accumulator.normal()
        sigmas = np.sqrt(np.diag(self._accumulator.sandwich(estimate)))
        since = travel - self._changed_at
        verdict = self._gate.judge(information, estimate - centre, sigmas, since, centre != 0.0)
        return Proposal(estimate, minimiser(information, right, verdict.free, centre), sigmas, verdict, noise())

    def _use(self, deviation: Vector) -> None:
        self._used = deviation
        self._theta = theta_at(self._start, deviation, names=self._names)
        self._model = IncrementModel(self._theta, self._settings.odometry)
        self._unsure = self._widening() if self._on and len(self._names) else None
        self._tell()

    def _widening(self) -> Vector:
        """What `widened` takes of the numbers as they are used: as sure as the estimate is told to be."""
        gained = np.asarray(map_gained(self._start, self._used, names=self._names))
        return np.ascontiguousarray(np.moveaxis(gained * self._proposal.sigmas, -1, 0))

    def _tell(self) -> None:
        told = told_numbers(self._specs, self._start_vector, self._used, self._proposal, self._on)
        of_noise = told_noise(self._noise, self._theta, self._proposal.verdict, self._on) if self._noise else []
        # Noise that was given is told as it was given until a block has taught it: each name once.
        given, noise = ({p.name: p for p in some} for some in (self._given, of_noise))
        taught = self._noise is not None and self._noise.blocks > 0
        self._parameters = (*told, *(given | noise if taught else noise | given).values())

    def _block(self, links: Sequence[Link]) -> Block:
        return make_block(links, self._pairs, self._settings.odometry, self._settings.learning.teacher)

    def _cost(self, block: Block | Leg, deviation: Vector, start: Theta | None = None) -> Score:
        start, width = self._start if start is None else start, self._settings.learning.robust_width
        if isinstance(block, Leg):
            return leg_loss.score(block, leg_loss.model_at(start, deviation, self._names), width)
        loss = self._settings.learning.loss
        return jax.device_get(score_at(block, start, deviation, width=width, names=self._names, loss=loss))

    def _own(self, block: Block | Leg, deviation: Vector, start: Theta | None = None) -> tuple[Score, Vector]:
        """`_cost`, and `losses.dilution` (K,) of the block there: zero but for the gains."""
        start = self._start if start is None else start
        width, loss = self._settings.learning.robust_width, self._settings.learning.loss
        if isinstance(block, Leg):
            model = leg_loss.model_at(start, deviation, self._names)
            score, told = leg_loss.score_and_dilution(block, model, width)
        else:
            found = own_at(block, start, deviation, width=width, names=self._names, loss=loss)
            score, told = jax.device_get(found)
        diluted = np.zeros(len(self._names))
        for name, value in zip(losses.DILUTED, told, strict=True):
            if name in self._names:
                diluted[self._names.index(name)] = value
        return score, diluted


def _noise_learner(start: Theta, settings: config.Learning) -> NoiseLearner:
    from dsg_ros.learning import noise  # here: it imports optax, which takes its time

    return noise.NoiseLearner(start, settings)
