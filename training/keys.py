"""RangeSet: which sequence numbers are held, in as many numbers as there are gaps."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator


class RangeSet:
    """A set of whole numbers kept as disjoint inclusive ranges: a month without gaps is two numbers."""

    def __init__(self, numbers: Iterable[int] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for number in numbers:
            self.add(number)

    def __contains__(self, number: int) -> bool:
        place = bisect_right(self._starts, number) - 1
        return place >= 0 and number <= self._ends[place]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """The ranges, both ends included, ascending."""
        return iter(zip(self._starts, self._ends, strict=True))

    def __len__(self) -> int:
        return sum(end - start + 1 for start, end in self)

    def add(self, number: int) -> bool:
        """Put a number in; False when it was there already."""
        place = bisect_right(self._starts, number) - 1
        if place >= 0 and number <= self._ends[place]:
            return False
        joins_left = place >= 0 and self._ends[place] == number - 1
        joins_right = place + 1 < len(self._starts) and self._starts[place + 1] == number + 1
        if joins_left and joins_right:
            self._ends[place] = self._ends.pop(place + 1)
            del self._starts[place + 1]
        elif joins_left:
            self._ends[place] = number
        elif joins_right:
            self._starts[place + 1] = number
        else:
            self._starts.insert(place + 1, number)
            self._ends.insert(place + 1, number)
        return True

    def gaps(self) -> list[tuple[int, int]]:
        """Inclusive ranges that are missing between the first and the last number."""
        return [(end + 1, start - 1) for end, start in zip(self._ends, self._starts[1:], strict=False)]
