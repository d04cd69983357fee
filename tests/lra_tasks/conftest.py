from collections.abc import Iterator

import jaxtyping
import pytest


@pytest.fixture
def types_unchecked() -> Iterator[None]:
    # Which element of a container the type checker looks at, it asks python's global random numbers, and the
    # contract's law about these would call that a fault of the task.
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
