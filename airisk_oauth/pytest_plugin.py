"""The fixture ``airisk``. pytest loads this wherever the package is installed, so all else is imported on first use."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .testing import FakeAIRisk


@pytest.fixture
def airisk() -> "Iterator[FakeAIRisk]":
    """A fake AIRisk for one test, a :class:`airisk_oauth.testing.FakeAIRisk`: no request leaves the process."""
    from .testing import FakeAIRisk

    with FakeAIRisk() as airisk:
        yield airisk
