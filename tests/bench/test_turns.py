"""Of several commands one measures at a time, and none waits for one that has ended."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bench import turns

HOLD = (
    "import sys, time; from pathlib import Path; from bench import turns;"
    "turns.place = lambda: Path(sys.argv[1])\n"
    "with turns.turn(print): print('mine', flush=True); time.sleep(60)"
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(turns, "place", lambda: tmp_path / "turn")
    return tmp_path / "turn"


def test_alone_nobody_waits(place: Path):
    heard = list[str]()
    for _ in range(2):
        with turns.turn(heard.append):
            assert place.read_text() == str(os.getpid())
    assert heard == []


def test_another_waits_says_for_whom_and_goes_on_when_that_one_is_killed(place: Path):
    with subprocess.Popen([sys.executable, "-c", HOLD, str(place)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"mine\n"
        heard, order = list[str](), list[str]()

        def second() -> None:
            with turns.turn(heard.append):
                order.append("mine")

        waiter = threading.Thread(target=second)
        waiter.start()
        while not heard:
            time.sleep(0.01)
        assert order == []
        holder.send_signal(signal.SIGKILL)
        waiter.join(10)
    assert order == ["mine"]
    assert heard == [f"waiting for attnbench, process {holder.pid}, which measures on this machine"]
