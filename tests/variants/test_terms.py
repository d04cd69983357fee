"""What a variant declares must be possible before the contract asks whether it is true."""

import math
from collections.abc import Generator
from dataclasses import replace

import jaxtyping
import pytest

from variants.full.softmax import Softmax

IMPOSSIBLE = {
    "family must be one of full, .*, not 'fully'": {"family": "fully"},
    "key_mask must be one of exact, approximate, no, not 'yes'": {"key_mask": "yes"},
    "title must not be empty": {"title": ""},
    "order must not be empty": {"order": ""},
    "backends must not be empty": {"backends": ()},
    "time_exponent must be a number from 0 up, not -1": {"time_exponent": -1.0},
    "time_exponent must be a number from 0 up, not nan": {"time_exponent": math.nan},
    "memory_exponent must be a number from 0 up, not inf": {"memory_exponent": math.inf},
}


@pytest.fixture(autouse=True)
def _unchecked() -> Generator[None]:
    # The type checker of these tests would be the first to see it, and nobody else has one.
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_impossible_capabilities_are_refused(what: str) -> None:
    with pytest.raises(ValueError, match=what):
        replace(Softmax.caps, **IMPOSSIBLE[what])  # type: ignore[arg-type]
