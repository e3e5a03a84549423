"""Several drives, one theta: learned on all that agree, each foretold by what the others teach."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsg_ros.learning.agreement import ScoreTest, score_test
from dsg_ros.learning.evidence import Evidence
from dsg_ros.learning.joint import Estimate, Joint, Span

Vector = NDArray[np.float64]

LEVEL = 0.01
"""How often the drives of one robot may be called those of several, all drives together (Bonferroni)."""

ALIKE = 0.1
"""What one robot's theta may differ by from drive to drive, in prior deviations: 0.5 % of scale, 1 cm of lever."""

TOLERATED = 0.01
"""What the others teach may foretell a drive worse than the start does by this share, all drives together."""

_log = logging.getLogger(__name__)

Advance = Callable[[str], None]
"""Told what is done next."""


@dataclass(frozen=True)
class LeftOut:
    """A drive and what others teach: its held-out losses at the start, at the theta of the ``others``, and at that of
    all drives used; ``test`` of the others' theta (both none where there are no others).  ``own`` is its own theta.
    """

    loss_start: float
    loss_others: float | None
    loss_all: float
    test: ScoreTest | None
    others: Estimate | None
    own: Estimate
    used: bool
    agrees: bool


@dataclass(frozen=True)
class Together:
    """Theta of all drives used, the report on each drive, and the loss of the drives used, each under the theta of the
    others: the mean over directions, at the start and as learned (the same where everything is kept at the start).
    """

    estimate: Estimate
    drives: tuple[LeftOut, ...]
    held_out_before: float
    held_out_after: float
    metres: float


def learn_together(
    joint: Joint, spans: Sequence[Span], metres: Sequence[float], advance: Advance, all_used: bool = False
) -> Together:
    """One theta for the drives ``spans``, driven for ``metres`` each; parts of one drive are ``all_used``.

    While the drives do not agree, the one that the others contradict most is left out, as long as a majority remains:
    of two that disagree nobody knows which is right.  Then nothing is learned.
    """
    prior = np.array([spec.prior_sigma for spec in joint.specs])
    used = list(range(len(spans)))
    while True:
        chosen = [spans[i] for i in used]
        advance(f"learning from {len(used)} drives")
        joint.learn_noise(chosen)
        everything = joint.estimate(chosen, sum(metres[i] for i in used))
        others = {i: _without(joint, spans, metres, used, i, everything, advance) for i in range(len(spans))}
        tests = {i: _test(joint, spans[i], other, prior) for i, other in others.items() if other is not None}
        wrong = [i for i in used if i in tests and tests[i].p_value < LEVEL / len(spans)]
        if all_used or not wrong or 2 * (len(used) - 1) <= len(spans):
            break
        worst = max(wrong, key=lambda i: tests[i].statistic / tests[i].directions)
        _log.info("drive %d is contradicted by the others (p = %.2g): left out", worst + 1, tests[worst].p_value)
        used.remove(worst)
    start = joint.ask(np.zeros(len(prior)), spans)
    under_all = joint.ask(everything.used, spans)
    under_others = {i: joint.ask(o.used, [spans[i]])[0] for i, o in others.items() if o is not None}
    own = [joint.estimate([span], way, everything.deviation) for span, way in zip(spans, metres, strict=True)]
    before, after = _loss(start, used), _loss([under_others.get(i, under_all[i]) for i in range(len(spans))], used)
    if wrong and not all_used:
        after = before
        everything = joint.kept_at_start(everything, "the drives disagree, and nothing says which is right")
    elif after > before * (1 + TOLERATED):
        why = f"what the other drives teach foretells a drive worse ({after:.3g}, {before:.3g} at the start)"
        everything, after = joint.kept_at_start(everything, why), before
    if not everything.used.any():
        under_all = start
    drives = []
    for i in range(len(spans)):
        test, apart = tests.get(i), under_others.get(i)
        agrees = test is None or test.p_value >= LEVEL / len(spans)
        loss = None if apart is None else apart.loss
        drives.append(LeftOut(start[i].loss, loss, under_all[i].loss, test, others[i], own[i], i in used, agrees))
    return Together(everything, tuple(drives), before, after, sum(metres[i] for i in used))


def _without(
    joint: Joint,
    spans: Sequence[Span],
    metres: Sequence[float],
    used: Sequence[int],
    left_out: int,
    everything: Estimate,
    advance: Advance,
) -> Estimate | None:
    """Theta of all drives used but one; None where no other is used."""
    others = [i for i in used if i != left_out]
    if len(others) == len(used):
        return everything
    if not others:
        return None
    advance(f"leaving drive {left_out + 1} out")
    return joint.estimate([spans[i] for i in others], sum(metres[i] for i in others), everything.deviation)


def _test(joint: Joint, span: Span, others: Estimate, prior: Vector) -> ScoreTest:
    return score_test(joint.ask(others.deviation, [span])[0], others.covariance, prior, ALIKE)


def _loss(evidence: Sequence[Evidence], used: Sequence[int]) -> float:
    cost, directions = (sum(getattr(evidence[i], name) for i in used) for name in ("cost", "directions"))
    return float(2 * cost / max(directions, 1.0))
