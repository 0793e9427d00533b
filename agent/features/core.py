"""The feature core: four rows of samples in, their features out, one windowed spectrum for everything.

Why it looks like this (measured): scipy.fft transforms four float32 rows at the price of two, so a block always has
four; every spectral feature, the envelope included, reads the same Hann spectrum or its squares; whatever is a sum is one pass
over memory; the buffers are reused, by all cores of a thread, so that a warm core touches no new page.
"""

from __future__ import annotations

import importlib
from collections import Counter, OrderedDict
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from agent.features import fourier
from agent.features.feature import Analysis, Moments, Plan, Rows
from agent.features.scratch import SCRATCH
from agent.features.sums import dots, totals
from agent.vocabulary import F32, F64, OperatingPoint

NO_LINES = np.empty((1, 0))


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

    def __call__(self, samples: F32, lines_hz: F64) -> F32:
        """Features of up to four windows, of whatever axes and machines; four cost little more than one.

        Args:
            samples: shape (n_rows, n_samples), m/s2, n_rows from 1 to ROWS. Not changed.
            lines_hz: shape (n_lines,) or (n_rows, n_lines), where the plan's lines stand; NaN where that is not known.
        Returns: shape (n_rows, n_columns), float32 in each column's unit; NaN where a line is not known.
        """
        return self.measure(self.transform(samples), lines_hz)

    def measure(self, rows: Rows, lines_hz: F64) -> F32:
        """The second half: features of rows just transformed."""
        rows = Rows(
            rows.moments,
            rows.spectrum,
            rows.power,
            (lines_hz if lines_hz.ndim == 2 else lines_hz[None]) / self.plan.bin_hz,
        )
        with np.errstate(divide="ignore", invalid="ignore"):  # a flat row has no ratios
            found = {name: analysis(rows) for name, analysis in self.analyses.items()}
            columns = [formula(found[family], column) for family, formula, column in self._formulas]
            return np.array(columns, np.float32).T

    def transform(self, samples: F32) -> Rows:
        """The first half, which needs no line: centre the rows, window them, transform them, good until the thread's next call.

        The transform takes four rows, missing ones silent, and is cheaper for it.
        """
        n_rows, n_samples = samples.shape
        in_time = SCRATCH.rows("in_time", n_samples, np.float32)
        spectrum = SCRATCH.rows("spectrum", n_samples // 2 + 1, np.complex64)
        power = SCRATCH.rows("in_time", 2 * (n_samples // 2 + 2), np.float32)[:n_rows]  # over what was in time
        with np.errstate(invalid="ignore"):  # a sample that is no number makes its row none
            mean = totals(samples) / n_samples
            centred = np.subtract(samples, mean.astype(np.float32)[:, None], out=in_time[:n_rows])
            moments = _moments(mean, centred, spectrum.view(np.float32)[:n_rows, :n_samples])
            np.multiply(centred, self._window, out=centred)
            in_time[n_rows:] = 0
            fourier.rfft(in_time, out=spectrum)
            np.square(spectrum[:n_rows].view(np.float32), out=power[:, :-2])
            power[:, -2:] = 0
        return Rows(moments, spectrum[:n_rows], power, NO_LINES)


def _moments(mean: F64, centred: F32, scratch: F32) -> Moments:
    """One buffer of squares serves all."""
    n_samples = centred.shape[1]
    squares = np.square(centred, out=scratch)
    second = dots(centred, centred) / n_samples
    return Moments(
        mean_m_s2=mean,
        peak_m_s2=np.sqrt(np.maximum.reduce(squares, axis=1)),
        rms_m_s2=np.sqrt(second),
        second=second,
        third=dots(squares, centred) / n_samples,
        fourth=dots(squares, squares) / n_samples,
    )


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
    """The cores of one machine, one per sample rate seen lately, and what became of its windows.

    Attributes:
        refused: windows that were not computed, by reason. point: what the last one was computed for, with the shaft speed that
        was found for it. speed_source: where that came from, as `ShaftSpeed.source`.

    A sensor's true rate is its own and drifts with temperature; building a core takes about a millisecond, so keeping a
    few is enough and keeping all would be a leak.
    """

    def __init__(self, plan_at: Callable[[float], Plan], capacity: int = 8) -> None:
        self._plan_at = plan_at
        self._capacity = capacity
        self._cores: OrderedDict[float, Core] = OrderedDict()
        self.refused: Counter[str] = Counter()
        self.built = 0
        self.point = OperatingPoint()
        self.speed_source = ""

    def __len__(self) -> int:
        return len(self._cores)

    def change(self, plan_at: Callable[[float], Plan]) -> None:
        """Other plans from now on; what was counted stays counted."""
        self._plan_at = plan_at
        self._cores.clear()

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
