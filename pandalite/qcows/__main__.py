"""The command ``python -m pandalite.qcows``; see :mod:`pandalite.qcows.cli`."""

from __future__ import annotations

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
