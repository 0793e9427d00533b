"""The AgentError tree, beside firmware_bridge.errors.

HarkError
└── AgentError
    ├── BundleRefused     a model folder is not what its manifest says, or not for this agent      exit 1
    └── StoreError        the data folder cannot be used                                           exit 1
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from firmware_bridge.errors import HarkError

EXIT_INTERRUPTED = 130


def exit_code_of(verb: str, body: Callable[[], int]) -> int:
    """Run a verb's body; what a person can mend is told in a few lines on stderr, never as a traceback."""
    try:
        return body()
    except HarkError as error:
        print(f"hark {verb}: {error}" + (f"\n  {error.hint}" if error.hint else ""), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


class AgentError(HarkError):
    """The agent cannot do what it was asked."""


class BundleRefused(AgentError):
    """A model bundle failed its check at the door; the message says which check and what to do."""


class StoreError(AgentError):
    """The buffer on disk cannot be opened or written."""
