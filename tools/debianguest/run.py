"""Run a guest until it powers itself off: ``python run.py REQUEST``, in a process of its own.

REQUEST is a JSON object with arch, mem and extra_args of ``Panda``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from pandalite import Panda
from pandalite.errors import GuestShutdown


def main() -> int:
    """The command; status 0 if the guest powered itself off."""
    panda = Panda(**json.loads(sys.argv[1]))
    try:
        panda.run()
    except GuestShutdown:
        return 0
    print("the guest did not power itself off", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
