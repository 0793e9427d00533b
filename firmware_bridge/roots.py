"""Where config/ and models/ are: a checkout, an image, or wherever --root or HARK_ROOT points."""

from __future__ import annotations

import os
from pathlib import Path

from firmware_bridge.errors import ConfigError, Problem


def find_root(option: Path | None = None) -> Path:
    """The folder that holds config/ and models/: the option, else HARK_ROOT, else the checkout that this code stands in.

    Raises: ConfigError: the folder has no config/devices in it.
    """
    given = option or (Path(os.environ["HARK_ROOT"]) if os.environ.get("HARK_ROOT") else None)
    root = given or Path(__file__).resolve().parent.parent
    if not (root / "config" / "devices").is_dir():
        remedy = "has no config/devices in it; point --root or HARK_ROOT at the folder that holds config/ and models/"
        raise ConfigError(root, [Problem(0, "root", remedy)])
    return root
