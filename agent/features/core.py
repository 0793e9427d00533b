"""The feature core: four rows of samples in, their features out, one windowed spectrum for everything.

Why it looks like this (measured): scipy.fft transforms four float32 rows at the price of two, so a block always has
four; every spectral feature, the envelope included, reads the same Hann spectrum; what is linear in its squares is one
sum over memory; two scratch buffers are reused, by all cores of a thread, so that a warm core touches no new page but
the spectrum's.
"""

from __future__ import annotations

import importlib
from collections import Counter, OrderedDict
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from agent.features import fourier
from agent.features.feature import Analysis, Plan, Rows
from agent.features.scratch import SCRATCH
from agent.vocabulary import F32, F64


class Core:
    """A plan, made ready: window, index arrays, weights. The same input gives the same bits in any row, on any thread."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._window = mean_square_hann(plan.n_samples)
        self._formulas = [
            (feature.family, feature.evaluate, column)
            for feature, column in zip(plan.features, plan.columns, strict=True)
            if feature.evaluate is not None
        ]
        families = dict.fromkeys(f.family for f in plan.features)
        self.analyses: dict[str, Analysis] = {name: _analysis_of(name)(plan) for name in families}

    def __call__(self, samples: F32, line_hz: F64) -> F32:
        """Features of up to four windows, of whatever axes and machines; four cost as much as one.

        Args:
            samples: shape (n_rows, n_samples), m/s2, finite, n_rows from 1 to ROWS. Not changed.
            line_hz: shape (n_columns,) or (n_rows, n_columns), where each column's line stands; NaN where it has none.
        Returns: shape (n_rows, n_columns), float32 in each column's unit; NaN where a line is not known.
        """
        with np.errstate(divide="ignore", invalid="ignore"):  # a flat row has no ratios
            rows = self._transform(samples, line_hz)
            found = {name: analysis(rows) for name, analysis in self.analyses.items()}
            columns = [formula(found[family], column) for family, formula, column in self._formulas]
        return np.array(columns, np.float32).T

    def _transform(self, samples: F32, line_hz: F64) -> Rows:
        """Centre the rows and window them; the transform takes four, missing ones silent, and is cheaper for it."""
        here = slice(len(samples))
        centred = SCRATCH.rows("centred", self.plan.n_samples, np.float32)[here]
        windowed = SCRATCH.rows("windowed", self.plan.n_samples, np.float32)
        np.subtract(samples, samples.mean(axis=1, keepdims=True), out=centred)
        np.multiply(centred, self._window, out=windowed[here])
        windowed[len(samples) :] = 0
        spectrum = fourier.rfft(windowed)
        line_hz = np.broadcast_to(line_hz, (len(samples), len(self.plan.columns)))
        return Rows(centred, spectrum[here], windowed[here], line_hz)


@lru_cache(maxsize=8)
def mean_square_hann(n_samples: int) -> F32:
    """A periodic Hann window, scaled so that sums over |rfft(window * x)|^2 are mean squares of x.

    Parseval: the sum over t of (w x)^2 is 2/n times the sum over one-sided bins of |X|^2; the window keeps, on average,
    the share sum(w^2)/n of the signal's mean square. Both factors are put into the window itself.
    """
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_samples) / n_samples)
    window: F32 = (hann * np.sqrt(2 / (n_samples * np.square(hann).sum()))).astype(np.float32)
    window.setflags(write=False)  # every core of this length has the same one
    return window


def _analysis_of(family: str) -> Callable[[Plan], Analysis]:
    module = importlib.import_module(f"agent.features.{family}")
    analysis: Callable[[Plan], Analysis] = module.Analysis
    return analysis


class Cores:
    """The cores of one feature set, one per sample rate seen lately, and why windows were refused.

    A sensor's true rate is its own and drifts with temperature; building a core takes about a millisecond, so keeping a
    few is enough and keeping all would be a leak.
    """

    def __init__(self, plan_at: Callable[[float], Plan], capacity: int = 8) -> None:
        self._plan_at = plan_at
        self._capacity = capacity
        self._cores: OrderedDict[float, Core] = OrderedDict()
        self.refused: Counter[str] = Counter()
        self.built = 0

    def __len__(self) -> int:
        return len(self._cores)

    def at(self, sample_rate_hz: float) -> Core:
        """The core for this rate; the one unused for longest makes room."""
        core = self._cores.pop(sample_rate_hz, None)
        if core is None:
            core = Core(self._plan_at(sample_rate_hz))
            self.built += 1
        self._cores[sample_rate_hz] = core
        if len(self._cores) > self._capacity:
            self._cores.popitem(last=False)
        return core
