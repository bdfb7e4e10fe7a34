"""How fast work goes, and when it will be done.

Work comes in bursts: some workers load a model, which can take minutes, and then finish pieces of
like size at about the same time, again and again. Units over the time since the start would blame
the loading on every unit; units over the time since the first would take the rest of the first
burst for speed. So the rate is the slope of the line (least squares) through what was done when,
and of a long stage through its last half, since pools grow and rows come sorted by length.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Rate"]

_BURST_SHARE = (
    0.25  # of the time to the first unit: what comes so soon after it is one burst with it
)
_SETTLED = 4  # times to the first unit, after which the last half holds several bursts
_LEAST_MOMENTS = 8  # of the last half; fewer are too few to leave older ones out
_MOST_MOMENTS = 512  # remembered; then every other one is forgotten


@dataclass
class _Moment:
    at: float
    done: int


class Rate:
    """Units per second of work that starts at a time; memory does not grow with the work."""

    def __init__(self, started: float) -> None:
        self._started = started
        self._moments: list[_Moment] = []

    def count(self, units: int, now: float) -> None:
        """Units that are finished now."""
        if units <= 0:
            return
        done = self._moments[-1].done if self._moments else 0
        self._moments.append(_Moment(now, done + units))
        if len(self._moments) > _MOST_MOMENTS:
            self._moments = self._moments[::2]  # an odd number: the first and the last stay

    def at(self, now: float) -> float | None:
        """Units per second, None before the first; falls while nothing comes for too long."""
        if not self._moments:
            return None
        rate, span, gap = self._pace()
        late = max(now - self._moments[-1].at - gap, 0.0)
        return rate * span / (span + late)

    def eta(self, left: int, now: float) -> float | None:
        """Seconds until `left` more units are finished; None before the first."""
        if left <= 0:
            return 0.0
        rate = self.at(now)
        if rate is None:
            return None
        _, _, gap = self._pace()
        return max(left / rate - min(now - self._moments[-1].at, gap), 0.0)

    def _pace(self) -> tuple[float, float, float]:
        """Units per second, seconds that they were seen over, longest pause in these."""
        first, last = self._moments[0], self._moments[-1]
        to_first = max(first.at - self._started, 1e-9)
        since_first = last.at - first.at
        if since_first <= _BURST_SHARE * to_first:
            span = max(last.at - self._started, 1e-9)
            return last.done / span, span, to_first
        at = np.array([moment.at for moment in self._moments])
        done = np.array([moment.done for moment in self._moments], dtype=np.float64)
        recent = at > last.at - since_first / 2
        if since_first > _SETTLED * to_first and recent.sum() >= _LEAST_MOMENTS:
            at, done = at[recent], done[recent]
        away = at - at.mean()
        slope = float(away @ (done - done.mean()) / (away @ away))
        return slope, float(at[-1] - at[0]), float(np.diff(at).max())
