"""Plots for pages that stand alone: plain SVG text, drawn in the page's own colours. Axes, lines, dots and rules; no library."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Axis:
    """From values to pixels. `ticks`: values that are written at it; `labels`: what is written, by default the values."""

    low: float
    high: float
    title: str = ""
    ticks: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()
    logarithmic: bool = False

    def place(self, value: float, first_px: float, last_px: float) -> float:
        """Values beyond the ends are drawn at them."""
        low, high, at = (math.log(v) if self.logarithmic else v for v in (self.low, self.high, self._held(value)))
        return first_px + (at - low) / (high - low) * (last_px - first_px)

    def marks(self) -> Iterable[tuple[float, str]]:
        """Ticks with what is written at them."""
        return zip(self.ticks, self.labels or tuple(f"{tick:g}" for tick in self.ticks), strict=True)

    def _held(self, value: float) -> float:
        return min(max(value, self.low), self.high)


def decades(low: float, high: float) -> tuple[float, ...]:
    """Powers of ten that enclose both, rising; not more than seven of them."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    step = max(1, math.ceil((last - first) / 6))
    return tuple(10.0**exponent for exponent in range(first, last + 1, step))


def round_steps(high: float) -> tuple[float, ...]:
    """Round values from 0 up to `high`, some five of them."""
    rough = high / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = unit * next(factor for factor in (1, 2, 5, 10) if factor * unit >= rough)
    return tuple(round(at * step, 10) for at in range(math.floor(high / step) + 1))


@dataclass(slots=True)
class Plot:
    """One picture under construction. Styles are classes of the page's style sheet."""

    x: Axis
    y: Axis
    title: str  # for people who cannot see it
    width_px: int = 640
    height_px: int = 260
    left_px: int = 58
    _parts: list[str] = field(default_factory=list)

    def line(self, points: Iterable[Point], style: str) -> None:
        """A line through points; one that is not finite breaks it."""
        path, pen_is_up = "", True
        for at, value in points:
            if not (math.isfinite(at) and math.isfinite(value)):
                pen_is_up = True
                continue
            path += f"{'M' if pen_is_up else 'L'}{self._x(at):.1f} {self._y(value):.1f}"
            pen_is_up = False
        self._parts.append(f'<path class="line {style}" d="{path}"/>')

    def dots(self, points: Iterable[Point], style: str) -> None:
        """Round dots: strokes without length, with round ends."""
        path = "".join(f"M{self._x(at):.1f} {self._y(value):.1f}h0" for at, value in points)
        self._parts.append(f'<path class="dots {style}" d="{path}"/>')

    def rule(self, value: float, text: str, style: str) -> None:
        """A level across the picture, with its meaning at the left."""
        y_px = self._y(value)
        self._parts.append(f'<path class="line {style}" d="M{self.left_px} {y_px:.1f}H{self._right_px}"/>')
        self._parts.append(_text(self.left_px + 6, y_px - 5, text, "start"))

    def fence(self, at: float, text: str = "", style: str = "fence") -> None:
        """A place along the picture, with its meaning at the top."""
        x_px = self._x(at)
        self._parts.append(f'<path class="line {style}" d="M{x_px:.1f} {self._top_px}V{self._bottom_px}"/>')
        if text:
            self._parts.append(_text(x_px + 4, self._top_px + 11, text, "start"))

    def svg(self) -> str:
        """The picture."""
        return "\n".join(
            [
                f'<svg viewBox="0 0 {self.width_px} {self.height_px}" role="img">',
                f"<title>{escape(self.title)}</title>",
                f'<path class="frame" d="M{self.left_px} {self._top_px}V{self._bottom_px}H{self._right_px}"/>',
                *self._ticks(),
                *self._parts,
                "</svg>",
            ]
        )

    def _ticks(self) -> Sequence[str]:
        middle_px = (self.left_px + self._right_px) / 2
        parts = [_text(middle_px, self.height_px - 4, self.x.title), _text(2, 11, self.y.title, "start")]
        parts += [_text(self._x(tick), self._bottom_px + 14, label) for tick, label in self.x.marks()]
        for tick, label in self.y.marks():
            y_px = self._y(tick)
            parts.append(f'<path class="grid" d="M{self.left_px} {y_px:.1f}H{self._right_px}"/>')
            parts.append(_text(self.left_px - 6, y_px + 4, label, "end"))
        return parts

    @property
    def _top_px(self) -> int:
        return 20

    @property
    def _bottom_px(self) -> int:
        return self.height_px - 34

    @property
    def _right_px(self) -> int:
        return self.width_px - 18

    def _x(self, value: float) -> float:
        return self.x.place(value, self.left_px, self._right_px)

    def _y(self, value: float) -> float:
        return self.y.place(value, self._bottom_px, self._top_px)


def _text(x_px: float, y_px: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x_px:.1f}" y="{y_px:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
