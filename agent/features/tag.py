"""Statistics of scalar channels as columns: declared here, computed by the TagBank for all channels at once."""

from __future__ import annotations

from agent.features.feature import Feature

LEVEL = Feature(
    id="tag.level",
    version=1,
    transform="linear",
    kind="tag",
    words="level",
    source="exponentially weighted mean for uneven sampling, weight 1 - exp(-dt / tau)",
)
AMPLITUDE = Feature(
    id="tag.amplitude",
    version=1,
    transform="log",
    kind="tag",
    words="amplitude",
    source="as tag.level, for what grows by factors: RMS values of vibration",
)
SLOW_LEVEL = Feature(
    id="tag.slow_level",
    version=1,
    transform="linear",
    kind="tag",
    words="slow level",
    source="as tag.level, with the slow time constant",
)
THERMAL_LEVEL = Feature(
    id="tag.thermal_level",
    version=1,
    transform="linear",
    kind="tag",
    words="level as a machine's mass feels it",
    source="as tag.level, with half an hour: what a body of that time constant has followed",
)
MEDIAN = Feature(
    id="tag.median",
    version=1,
    transform="linear",
    kind="tag",
    words="median",
    source="median of the latest samples, renewed in turns: never older than one round",
)
CARPET = Feature(
    id="tag.carpet",
    version=1,
    transform="log",
    kind="tag",
    words="level between strikes",
    source="lower quartile of the latest samples: what is there between single strikes and short events",
)
STD = Feature(
    id="tag.std",
    version=1,
    transform="log",
    kind="tag",
    words="unrest",
    source="exponentially weighted variance (West 1979) about tag.level",
)
SLOPE = Feature(
    id="tag.slope",
    version=1,
    transform="linear",
    kind="tag",
    words="slope per second",
    source="a ramp lags an exponential mean by its tau: (level - slow level) / (slow tau - tau)",
)
DEVIATION = Feature(
    id="tag.deviation",
    version=2,
    transform="standard",
    kind="tag",
    words="deviation from its own recent past",
    source="(level - slow level) / slow standard deviation",
)
EXCURSION = Feature(
    id="tag.excursion",
    version=1,
    transform="standard",
    kind="tag",
    words="sudden deviation from its own recent past",
    source="(thermal level - slow level) / slow standard deviation",
)
