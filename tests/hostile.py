"""What tests with guests that lie share."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from pandalite.errors import IntrospectionError

#: How many times as many cases as usual: TESTS_HOSTILE=50 makes some hundred tens of thousands.
TIMES = int(os.environ.get("TESTS_HOSTILE", "1"))


class Tally:
    """Counts rounds, and questions that got an answer or a typed error."""

    def __init__(self, *errors: type[Exception]) -> None:
        self._errors = (IntrospectionError, *errors)
        self.counts = {"rounds": 0, "errors": 0, "answers": 0}

    def attempt(self, question: Callable[[], Any]) -> None:
        """Ask; any other exception than those that are meant fails the test."""
        try:
            question()
            self.counts["answers"] += 1
        except self._errors:
            self.counts["errors"] += 1
