"""What a set is used for: set points of speed and load, and the service that takes it from one to the next over a year.

A service is declared in a few numbers and drawn day by day from a seed, so any day can be asked for without those before it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeVar

from simulator.variation import generator

T = TypeVar("T")
DAY_S = 86_400.0
YEAR_DAYS = 365.25
DAYS_OF_WEEK = 7
FIRST_OF_WEEKEND = 5
MOST_A_DAY = 24  # of stops and of changes


class Duty(NamedTuple):
    """Speed and load: what the drive gives, and the resistance of the circuit over its usual."""

    frequency_hz: float
    valve_ratio: float


USUAL_DUTY = Duty(50.0, 1.0)


@dataclass(frozen=True, slots=True)
class Service:
    """How a set is run through the days and the year.

    Attributes:
        duties: the set points that the process changes between. changes_per_day: how often, on average.
        stops_per_day: on average; each lasts between the two `pause_s`, evenly on a logarithmic scale, and ends the same day.
        daily_ratio: how the circuit's resistance swings within a day. weekend_ratio: how much more it is at weekends.
        ambient_day_k, ambient_season_k: amplitudes of the room's temperature. weather_k: standard deviation of its days.
        water_degc, water_season_k: what flows in, over the year.
        first_day: day of the year at time 0, counted from the coldest; time 0 is midnight before a Monday.
    """

    duties: Sequence[Duty] = (USUAL_DUTY, Duty(50.0, 0.85), Duty(50.0, 1.25))
    changes_per_day: float = 4.0
    stops_per_day: float = 2.0
    pause_s: tuple[float, float] = (900.0, 14_400.0)
    daily_ratio: float = 0.06
    weekend_ratio: float = 0.1
    ambient_day_k: float = 5.0
    ambient_season_k: float = 10.0
    weather_k: float = 1.5
    water_degc: float = 20.0
    water_season_k: float = 5.0
    first_day: float = 0.0

    @classmethod
    def quiet(cls) -> Service:
        """One set point, never stopped, in an even climate."""
        return cls(
            duties=(USUAL_DUTY,),
            changes_per_day=0.0,
            stops_per_day=0.0,
            daily_ratio=0.0,
            weekend_ratio=0.0,
            ambient_day_k=0.0,
            ambient_season_k=0.0,
            weather_k=0.0,
            water_season_k=0.0,
        )


class Order(NamedTuple):
    """What is asked of a set at one time, and the climate it stands in.

    Attributes:
        since_s: time since which it is on or off; minus infinity where it has run since the day before.
        ambient_k: the room over its yearly mean, without the weather's chance.
    """

    on: bool
    since_s: float
    duty: Duty
    ambient_k: float
    water_degc: float


class _Day(NamedTuple):
    """Edges of one day: (second of the day, on) and (second of the day, set point), each in order, the first at 0."""

    runs: tuple[tuple[float, bool], ...]
    duties: tuple[tuple[float, Duty], ...]


class Schedule:
    """One set's service, drawn from its seed. Holds no state: any time may be asked for, in any order."""

    def __init__(self, service: Service, seed: int, name: str) -> None:
        self._service = service
        self._seed = seed
        self._name = name
        self._phase = generator(seed, f"service {name}").uniform(0.0, math.tau, 2).tolist()
        self._day = lru_cache(maxsize=4)(self._drawn)

    def at(self, t_s: float) -> Order:
        """What is asked of the set at a time >= 0."""
        service = self._service
        number, second = divmod(t_s, DAY_S)
        day = self._day(int(number))
        start, on = _last(day.runs, second)
        since_s = number * DAY_S + start if start > 0.0 else -math.inf
        duty = _last(day.duties, second)[1]
        swing = 1.0 + service.daily_ratio * math.sin(math.tau * second / DAY_S + self._phase[0])
        if number % DAYS_OF_WEEK >= FIRST_OF_WEEKEND:
            swing += service.weekend_ratio
        year = math.tau * (number + second / DAY_S + service.first_day) / YEAR_DAYS
        ambient_k = service.ambient_day_k * math.sin(math.tau * second / DAY_S + self._phase[1])
        ambient_k -= service.ambient_season_k * math.cos(year)
        water_degc = service.water_degc - service.water_season_k * math.cos(year)
        return Order(on, since_s, Duty(duty.frequency_hz, duty.valve_ratio * swing), ambient_k, water_degc)

    def edges(self, after_s: float, until_s: float) -> list[float]:
        """When the set is switched, in (after_s, until_s]."""
        found = []
        for number in range(int(after_s // DAY_S), int(until_s // DAY_S) + 1):
            found += [number * DAY_S + second for second, _ in self._day(number).runs[1:]]
        return [at_s for at_s in found if after_s < at_s <= until_s]

    def _drawn(self, number: int) -> _Day:
        service = self._service
        rng = generator(self._seed, f"day of {self._name}", number)
        n_stops = min(MOST_A_DAY, int(rng.poisson(service.stops_per_day)))
        n_changes = min(MOST_A_DAY, int(rng.poisson(service.changes_per_day)))
        stops = sorted(rng.uniform(0.0, DAY_S, n_stops).tolist())
        shortest_s, longest_s = service.pause_s
        lengths = (shortest_s * (longest_s / shortest_s) ** rng.random(n_stops)).tolist()
        runs: list[tuple[float, bool]] = [(0.0, True)]
        for stop_s, length_s in zip(stops, lengths, strict=True):
            if stop_s > runs[-1][0] + shortest_s and stop_s + length_s < DAY_S - shortest_s:
                runs += [(stop_s, False), (stop_s + length_s, True)]
        times = [0.0, *sorted(rng.uniform(0.0, DAY_S, n_changes).tolist())]
        chosen = rng.integers(len(service.duties), size=n_changes + 1).tolist()
        return _Day(tuple(runs), tuple((at_s, service.duties[k]) for at_s, k in zip(times, chosen, strict=True)))


def _last(edges: Sequence[tuple[float, T]], second: float) -> tuple[float, T]:
    """The last edge up to a second of the day."""
    return next(edge for edge in reversed(edges) if edge[0] <= second)
