"""How far a training is, while it goes on."""

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from bench import pulse
from bench.commands.progress import Bar, lively
from bench.prediction import Predictor
from bench.pulse import Beat, Pulse, felt, place
from tests.bench.test_training import cell, run


def test_a_beat_says_how_far_a_training_is_and_what_is_left(tmp_path: Path):
    beats = Pulse(path := tmp_path / "x", every_s=0.0)
    beats.beat(10, 30, 2.0, None)
    time.sleep(0.1)
    beats.beat(20, 30, 1.5, 0.25)
    seen = felt(path)
    assert seen is not None
    assert (seen.step, seen.steps, seen.loss, seen.accuracy) == (20, 30, 1.5, 0.25)
    # Ten steps took a tenth of a second, those before this process nothing.
    assert 0.1 <= seen.left_s < 0.5


def test_beats_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    written = list[str]()
    monkeypatch.setattr(Path, "write_text", lambda _, text: written.append(text))
    monkeypatch.setattr(Path, "replace", lambda *_: None)
    beats, until = Pulse(tmp_path / "x"), time.monotonic() + 1.2
    while time.monotonic() < until:
        beats.beat(1, 2, 0.0, None)
    assert len(written) == 3


def test_a_training_whose_pulse_cannot_be_written_is_none_the_worse(tmp_path: Path):
    (tmp_path / "file").touch()
    Pulse(tmp_path / "file" / "x", every_s=0.0).beat(1, 2, 0.0, None)
    Pulse(None, every_s=0.0).beat(1, 2, 0.0, None)


@pytest.mark.parametrize("content", [None, "", '{"step": 1', "[]"])
def test_what_is_no_beat_is_not_felt(tmp_path: Path, content: str | None):
    if content is not None:
        (tmp_path / "x").write_text(content)
    assert felt(tmp_path / "x") is None


def test_a_beat_in_words():
    beat = Beat(step=120, steps=1000, loss=1.2345, accuracy=0.4512, left_s=75.0)
    assert lively(beat) == f"step 120/1000, loss 1.23, validation 45.1%, {pulse_clock(75.0)} left"
    first = Beat(step=1, steps=1000, loss=None, accuracy=None, left_s=75.0)
    assert lively(first) == f"step 1/1000, {pulse_clock(75.0)} left"


def pulse_clock(seconds: float) -> str:
    from bench.commands.clock import clock

    return clock(seconds)


def test_the_bar_shows_the_pulse_of_the_training_at_hand():
    screen = io.StringIO()
    bar = Bar(Console(file=screen, force_terminal=True, width=300), Predictor())
    asked = cell()
    with bar:
        bar.planned([], [asked])
        bar.started(asked)
        Pulse(place(asked), every_s=0.0).beat(7, 12, 0.5, None)
        time.sleep(0.7)
    assert "step 7/12, loss 0.5" in screen.getvalue()
    place(asked).unlink()


def test_a_training_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from bench import fitting

    seen = list[tuple[int, int]]()
    monkeypatch.setattr(
        fitting.SILENT, "beat", lambda step, steps, loss, accuracy: seen.append((step, steps))
    )
    run(cell())
    assert seen == [(step, 12) for step in range(1, 13)]
    assert pulse.EVERY_S >= 0.5
