"""A recording's site: which mapping its columns fit, and the site file that says how such a recording is watched.

A kind of recording is two files in config/recordings: `<name>.toml` (how its columns are read) and `<name>.site.toml` (a site
file like any other, whose replay source is given the recording's path here).
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from agent.config import Site, SiteConfig, resolve
from firmware_bridge.checked import load
from firmware_bridge.errors import ConfigError, Problem, RecordingError
from firmware_bridge.source import ReplaySpec
from firmware_bridge.sources.replay import Recording, load_recording

HEADER_BYTES = 1 << 16


def site_for_recording(recording: Path, root: Path, name: str | None = None, engine: str | None = None) -> Site:
    """The site that plays `recording`.

    Args: name: of the mapping; found by the columns when it is None. engine: instead of the site file's.
    Raises: RecordingError: no mapping fits. ConfigError: a wrong mapping or site file.
    """
    name = name or _fitting(recording, root / "config")
    path = root / "config" / "recordings" / f"{name}.site.toml"
    if not path.is_file():
        known = ", ".join(known_recordings(root / "config")) or "none"
        raise ConfigError(
            path, [Problem(0, f"--recording {name}", f"not known; write one of {known}, or add this file")]
        )
    config = load(path, SiteConfig)
    sources = tuple(
        msgspec.structs.replace(source, path=str(recording)) if isinstance(source, ReplaySpec) else source
        for source in config.sources
    )
    section = msgspec.structs.replace(config.site, engine=engine) if engine else config.site
    return resolve(msgspec.structs.replace(config, sources=sources, site=section), path, root)


def known_recordings(config_dir: Path) -> dict[str, Recording]:
    """Every mapping that has a site file beside it."""
    names = sorted(path.name.removesuffix(".site.toml") for path in (config_dir / "recordings").glob("*.site.toml"))
    return {name: load_recording(config_dir, name) for name in names}


def _fitting(path: Path, config_dir: Path) -> str:
    try:
        with path.open("rb") as file:
            header = file.readline(HEADER_BYTES).decode("utf-8-sig", "replace").strip()
    except OSError as error:
        raise RecordingError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    if not header:
        raise RecordingError(f"{path}: its first line is empty; a recording begins with the names of its columns")
    recordings = known_recordings(config_dir)
    for name, mapping in recordings.items():
        found = {cell.strip().strip('"') for cell in header.split(mapping.separator)}
        if {mapping.time_column, *(column.column for column in mapping.columns)} <= found:
            return name
    known = ", ".join(recordings) or "none"
    raise RecordingError(
        f"{path}, line 1: its columns fit no mapping ({known}); add config/recordings/<name>.toml or name one with --recording"
    )
