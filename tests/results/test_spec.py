import pytest

from results.spec import Spec


def test_reads_and_writes_the_call_notation():
    spec = Spec.parse(" window( right=3,left = 64, name='a b', wide=True, rate=1e-3 ) ")
    assert spec.options == {"left": 64, "name": "a b", "rate": 1e-3, "right": 3, "wide": True}
    assert str(spec) == "window(left=64, name='a b', rate=0.001, right=3, wide=True)"
    assert Spec.parse(str(spec)) == spec


def test_order_of_options_does_not_matter():
    assert Spec.parse("a(x=1, y=2)") == Spec.parse("a(y=2, x=1)")
    assert hash(Spec.parse("a(x=1, y=2)")) == hash(Spec.parse("a(y=2, x=1)"))


def test_negative_numbers_are_values():
    assert Spec.parse("window(left=-1)").options == {"left": -1}


@pytest.mark.parametrize(
    "text",
    [
        "", "window(64)", "window[3]", "3", "a b", "a.b(x=1)", "a(x=[1])", "a(x=y)", "a(**b)", "a(",
        "a(x=1)(y=2)", "a(x=None)", "a(x={[]: 1})", "a(x=1e999)", "a(x='\\ud800')",
        "a(x=1+1j)", "a\0b", "a(x=1, x=2)",
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_its_text(text: str):
    with pytest.raises(ValueError, match="cannot read") as error:
        Spec.parse(text)
    assert repr(text) in str(error.value)


@pytest.mark.parametrize("text", ["(" * 1000, "-" * 100_000 + "1", "a(x=" + "-" * 100_000 + "1)"])
def test_what_is_nested_too_deep_is_refused(text: str):
    with pytest.raises(ValueError, match="cannot read"):
        Spec.parse(text)
