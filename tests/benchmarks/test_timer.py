import pytest

from tests.benchmarks import timer


def test_both_ways_time_the_same_call():
    line = timer.compare("sdpa", 64, rounds=2, least_s=0.0)
    # Of one order, on a machine that does other things too. The bar is that of the script itself.
    assert line.ours == pytest.approx(line.theirs, rel=3.0)
    assert str(line).startswith("sdpa")


@pytest.mark.parametrize(("ours", "code"), [(1.04, 0), (0.96, 0), (1.06, 1), (0.94, 1)])
def test_what_is_apart_by_more_than_the_bar_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ours: float, code: int
):
    monkeypatch.setattr(timer, "compare", lambda variant, length: timer.Line(variant, length, ours, 1.0))
    assert timer.main() == code
    assert ("NOT MET" in capsys.readouterr().out) == bool(code)
