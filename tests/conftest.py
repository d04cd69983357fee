import signal
import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    # What tests make is nobody's later.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTNBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_is_heard() -> None:
    # A shell that starts the tests in the background has them, and all that they start, ignore it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def settings_as_they_were() -> Iterator[None]:
    # What one test sets for the whole process would decide how the next one ends.
    if "variants.laws.settings" not in sys.modules:
        yield
        return
    from variants.laws.settings import restored, settings

    # pytest itself notes in the environment which test it runs.
    before = {name: value for name, value in settings().items() if name != "the environment"}
    with restored():
        yield
        after = settings()
    left = [name for name, value in before.items() if after[name] != value]
    assert not left, f"the test leaves other settings behind: {', '.join(left)}"
