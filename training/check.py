"""Whether a dataset is whole: every gateway's sequence numbers without gaps and without doubles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.delta import TABLES, DatasetError, open_table, sequences
from training.keys import RangeSet


def check_dataset(folder: Path) -> dict[str, Any]:
    """Counts by site, gateway and stream, and in all.

    `missing` counts numbers between the first and the last that is held; what a gateway dropped by its own policy
    before it was sent shows here too. Raises: DatasetError: no dataset there.
    """
    if not any((Path(folder) / name).is_dir() for name in TABLES.values()):
        raise DatasetError(f"{folder}: is no dataset; `hark data collect {folder}` makes one")
    sources: list[dict[str, Any]] = []
    for stream in TABLES:
        for (site, gateway, _), seqs in sorted(sequences(open_table(folder, stream), stream).items()):
            held = RangeSet(seqs)
            gaps = held.gaps()
            sources.append(
                {
                    "site": site,
                    "gateway": gateway,
                    "stream": stream,
                    "records": len(held),
                    "first": seqs[0],
                    "last": seqs[-1],
                    "missing": sum(last - first + 1 for first, last in gaps),
                    "gaps": [list(gap) for gap in gaps[:20]],
                    "duplicates": len(seqs) - len(held),
                }
            )
    totals = {name: sum(one[name] for one in sources) for name in ("records", "missing", "duplicates")}
    return {**totals, "sources": sources}
