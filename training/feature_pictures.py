"""Pictures of features for the docs: healthy moments to the left, then how the value goes with a fault's severity.

Plain SVG, in colours that can be read on white and on black. No plotting library: a strip, nine lines and four labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from agent.vocabulary import F64
from training.simulated_duties import Duty

WIDTH, HEIGHT = 420, 206
LEFT, RIGHT, TOP, BOTTOM = 62, 408, 38, 166
STRIP_WIDTH = 44  # of the healthy moments, left of severity 0
GREY = "#808080"
COLOURS = ("#4a90d9", "#2ca25f", "#d9822b")  # by speed, slowest first
DASHES = ("", "5 2", "2 2")  # by load, least resistance first
LEAST_SPAN_RATIO = 0.02  # of the value: an axis that shows less would show noise as a movement


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """What is drawn of one column.

    Attributes:
        healthy: shape (n_duties, n_moments). faulty: shape (n_duties, n_severities), or None where no simulated fault moves it.
        title: which column. fault: in words, with its place.
        logarithmic: whether the axis is.
    """

    title: str
    unit: str
    fault: str
    logarithmic: bool
    duties: tuple[Duty, ...]
    severities: tuple[float, ...]
    healthy: F64
    faulty: F64 | None

    def svg(self) -> str:
        """The picture, some 3 kB."""
        scale = self._scale()
        parts = [*self._frame(scale), *self._strip(scale)]
        if self.faulty is not None:
            parts += self._lines(scale, self.faulty)
        text = f"{self.title}: healthy" + (f" and with {self.fault}" if self.faulty is not None else "")
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
                f'font-family="sans-serif" font-size="11" fill="{GREY}" role="img">',
                f"<title>{escape(text)}</title>",
                *parts,
                "</svg>\n",
            ]
        )

    def _scale(self) -> Scale:
        seen = self.healthy if self.faulty is None else np.concatenate([self.healthy, self.faulty], axis=1)
        low, high = float(np.nanmin(seen)), float(np.nanmax(seen))
        least = LEAST_SPAN_RATIO * max(abs(low), abs(high)) or LEAST_SPAN_RATIO
        if high - low < least:
            middle = (low + high) / 2
            low, high = middle - least / 2, middle + least / 2
        return Scale(low, high, self.logarithmic)

    def _frame(self, scale: Scale) -> list[str]:
        """Title, axes, three values at the left, severities below, and what the colours mean."""
        unit = f" in {self.unit}" if self.unit else ""
        axes = f"M{LEFT} {TOP}V{BOTTOM}H{RIGHT}M{LEFT + STRIP_WIDTH} {TOP}V{BOTTOM}"
        parts = [
            _text(LEFT, 14, f"{self.title}{unit}", "start"),
            f'<path d="{axes}" stroke="{GREY}" stroke-opacity=".6" fill="none"/>',
            _text(LEFT + STRIP_WIDTH / 2, BOTTOM + 14, "healthy"),
        ]
        parts += [_text(LEFT - 6, scale.y(at) + 4, f"{at:.3g}", "end") for at in scale.ticks()]
        if self.faulty is not None:
            parts += [_text(_x(at), BOTTOM + 14, f"{at:g}") for at in (0.5, 1.0)]
            parts.append(_text(_x(0.75), BOTTOM + 14, "severity"))
            parts.append(_text(LEFT + STRIP_WIDTH, 29, f"with {self.fault}", "start"))
        return parts + self._legend()

    def _legend(self) -> list[str]:
        speeds = sorted({duty.frequency_hz for duty in self.duties})
        parts = []
        for place, (speed_hz, colour) in enumerate(zip(speeds, COLOURS, strict=False)):
            x = LEFT + 66 * place
            parts.append(f'<path d="M{x} {HEIGHT - 12}h16" stroke="{colour}" stroke-width="2"/>')
            parts.append(_text(x + 20, HEIGHT - 8, f"{speed_hz:g} Hz", "start"))
        return [*parts, _text(RIGHT, HEIGHT - 8, "full: most flow, dots: least", "end")]

    def _strip(self, scale: Scale) -> list[str]:
        """Every healthy moment as a dot: a path of strokes without length, with round ends."""
        parts = []
        for duty, moments in zip(self.duties, self.healthy, strict=True):
            colour, _ = self._style(duty)
            steps = np.linspace(6, STRIP_WIDTH - 6, len(moments))
            dots = "".join(f"M{LEFT + dx:.0f} {scale.y(v):.0f}h0" for dx, v in zip(steps, moments, strict=True))
            parts.append(f'<path d="{dots}" stroke="{colour}" stroke-width="3" stroke-linecap="round"/>')
        return parts

    def _lines(self, scale: Scale, faulty: F64) -> list[str]:
        parts = []
        for duty, moments, values in zip(self.duties, self.healthy, faulty, strict=True):
            colour, dash = self._style(duty)
            points = zip((0.0, *self.severities), (float(np.median(moments)), *values), strict=True)
            path = "L".join(f"{_x(severity):.0f} {scale.y(value):.0f}" for severity, value in points)
            dashes = f' stroke-dasharray="{dash}"' if dash else ""
            parts.append(f'<path d="M{path}" stroke="{colour}" stroke-width="1.5" fill="none"{dashes}/>')
        return parts

    def _style(self, duty: Duty) -> tuple[str, str]:
        speeds = sorted({each.frequency_hz for each in self.duties})
        loads = sorted({each.valve_ratio for each in self.duties})
        return COLOURS[speeds.index(duty.frequency_hz)], DASHES[loads.index(duty.valve_ratio)]


@dataclass(frozen=True, slots=True)
class Scale:
    """From values to pixels, upward."""

    low: float
    high: float
    logarithmic: bool

    def y(self, value: float) -> float:
        low, high, at = map(self._seen, (self.low, self.high, value))
        return BOTTOM - 4 - (at - low) / (high - low) * (BOTTOM - TOP - 8)

    def ticks(self) -> Sequence[float]:
        """Lowest, middle, highest."""
        middle = math.sqrt(self.low * self.high) if self.logarithmic else (self.low + self.high) / 2
        return self.low, middle, self.high

    def _seen(self, value: float) -> float:
        return math.log(value) if self.logarithmic else value


def _x(severity: float) -> float:
    return LEFT + STRIP_WIDTH + severity * (RIGHT - LEFT - STRIP_WIDTH - 6)


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{escape(text)}</text>'
