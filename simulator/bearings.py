"""Geometry of the rolling bearings that are simulated, and how often their parts meet."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bearing:
    """A rolling bearing's geometry, contact angle 0. Source of the shipped ones: Timken table A-9, back-calculated."""

    n_elements: int
    element_mm: float
    pitch_mm: float

    @property
    def outer_race_ratio(self) -> float:
        """Impacts per turn from a spall on the outer race (BPFO over shaft frequency)."""
        return self.n_elements / 2.0 * (1.0 - self.element_mm / self.pitch_mm)

    @property
    def inner_race_ratio(self) -> float:
        """Impacts per turn from a spall on the inner race (BPFI over shaft frequency)."""
        return self.n_elements / 2.0 * (1.0 + self.element_mm / self.pitch_mm)

    @property
    def ball_ratio(self) -> float:
        """Impacts per turn from a spall on a ball, which meets both races in one spin (2 BSF over shaft frequency)."""
        slim = self.element_mm / self.pitch_mm
        return (1.0 - slim * slim) / slim

    @property
    def cage_ratio(self) -> float:
        """Turns of the cage per turn of the shaft (FTF): so often a ball passes the load zone."""
        return 0.5 * (1.0 - self.element_mm / self.pitch_mm)


BEARINGS = {"6308": Bearing(8, 15.88, 65.0), "6309": Bearing(8, 17.46, 72.5), "6207": Bearing(9, 11.11, 53.5)}
