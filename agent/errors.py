"""The AgentError tree, beside firmware_bridge.errors.

HarkError
└── AgentError
    ├── BundleRefused     a model folder is not what its manifest says, or not for this agent      exit 1
    └── StoreError        the data folder cannot be used                                           exit 1
"""

from __future__ import annotations

from firmware_bridge.errors import HarkError


class AgentError(HarkError):
    """The agent cannot do what it was asked."""


class BundleRefused(AgentError):
    """A model bundle failed its check at the door; the message says which check and what to do."""


class StoreError(AgentError):
    """The buffer on disk cannot be opened or written."""
