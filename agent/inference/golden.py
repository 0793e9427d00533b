"""Between a bundle's golden windows and the agent's own feature code: what the check at the door recomputes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from agent.features import Cores, DataPlate, FeatureSet, Nameplate
from agent.features.bearings import BearingOrders
from agent.features.nameplate import CURVES, UNSTATED
from agent.inference.bundle import ComputeFeatures, GoldenWindow, ManifestColumn
from agent.vocabulary import F32, OperatingPoint, Window

ORDERS = ("bpfo", "bpfi", "bsf", "ftf")


def golden_features(features: FeatureSet) -> ComputeFeatures:
    """The agent's feature code as `open_bundle` wants it."""
    cores = Cores(features.plan_at)

    def compute(golden: GoldenWindow) -> F32:
        tags = {name: (value, True) for name, value in golden.tags.items()}
        values, _ = features.compute(_window(golden), tags, nameplate_from(golden.nameplate), cores)
        return values

    return compute


def manifest_columns(features: FeatureSet, floors: Sequence[float]) -> tuple[ManifestColumn, ...]:
    """The columns of a feature set as a manifest lists them. `floors`: smallest scale of each, in transformed units."""
    return tuple(
        ManifestColumn(
            name=column.name,
            channel=column.channel,
            feature=column.feature,
            version=column.version,
            transform=column.transform,
            scale_floor=floor,
            parameters=dict(column.parameters),
        )
        for column, floor in zip(features.columns, floors, strict=True)
    )


def nameplate_numbers(nameplate: Nameplate) -> dict[str, float]:
    """A nameplate as numbers by name; what is not known is left out."""
    numbers = {"rated_speed_rpm": nameplate.rated_speed_rpm, "line_frequency_hz": nameplate.line_frequency_hz}
    if nameplate.n_vanes is not None:
        numbers["n_vanes"] = float(nameplate.n_vanes)
    if nameplate.bearing is not None:
        numbers |= {order: getattr(nameplate.bearing, order) for order in ORDERS}
    numbers |= _data_numbers(nameplate.data)
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


def nameplate_from(numbers: Mapping[str, float]) -> Nameplate:
    """The reverse of `nameplate_numbers`."""
    has_bearing = all(order in numbers for order in ORDERS)
    return Nameplate(
        rated_speed_rpm=numbers.get("rated_speed_rpm", math.nan),
        line_frequency_hz=numbers.get("line_frequency_hz", math.nan),
        n_vanes=int(numbers["n_vanes"]) if "n_vanes" in numbers else None,
        bearing=BearingOrders(**{order: numbers[order] for order in ORDERS}) if has_bearing else None,
        data=_data_from(numbers),
    )


def _data_numbers(data: DataPlate) -> dict[str, float]:
    """What the site has stated; a curve's points as "head_curve[0][0]" (flow) and "head_curve[0][1]" (value)."""
    numbers: dict[str, float] = {}
    for name, value in msgspec.structs.asdict(data).items():
        if name in CURVES:
            points = enumerate(value)
            numbers |= {f"{name}[{at}][{axis}]": point[axis] for at, point in points for axis in (0, 1)}
        elif value is not None and value != getattr(UNSTATED, name):
            numbers[name] = float(value)
    return numbers


def _data_from(numbers: Mapping[str, float]) -> DataPlate:
    stated: dict[str, Any] = {}
    for name in DataPlate.__struct_fields__:
        if name in CURVES:
            n_points = sum(key.startswith(f"{name}[") for key in numbers) // 2
            stated[name] = tuple((numbers[f"{name}[{at}][0]"], numbers[f"{name}[{at}][1]"]) for at in range(n_points))
        elif name in numbers:
            stated[name] = int(numbers[name]) if name.startswith("n_") else numbers[name]
    return DataPlate(**stated)


def _window(golden: GoldenWindow) -> Window | None:
    if not golden.axes:
        return None
    return Window(
        machine="golden",
        sensor="golden",
        axes=golden.axes,
        samples=golden.samples,
        sample_rate_hz=golden.sample_rate_hz,
        burst_id=0,
        utc_ns=0,
        arrived_monotonic_ns=0,
        point=OperatingPoint(
            shaft_speed_rpm=golden.point.get("shaft_speed_rpm", math.nan),
            line_frequency_hz=golden.point.get("line_frequency_hz", math.nan),
            active_power_kw=golden.point.get("active_power_kw", math.nan),
        ),
    )
