"""A file's name is its registration: no table to edit, nothing loaded that the site does not name."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType


def names_in(package: ModuleType) -> list[str]:
    """The members of a family: the module names in its package, sorted."""
    return sorted(found.name for found in pkgutil.iter_modules(package.__path__))


def module_named(package: ModuleType, name: str) -> ModuleType:
    """Import `package`'s module called `name`, and no other.

    Raises: LookupError: unknown name; the message lists the known ones.
    """
    known = names_in(package)
    if name not in known:
        raise LookupError(f"{package.__name__} has no {name!r}; it has {', '.join(known)}")
    return importlib.import_module(f"{package.__name__}.{name}")
