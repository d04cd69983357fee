from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from variants import VARIANTS, catalogue
from variants.catalogue import build, find, load, names
from variants.full.softmax import Softmax
from variants.interface import Dims, Unsupported, Variant
from variants.low_rank.linformer import Linformer
from variants.options import check_declared, check_options, options
from variants.truncated.window import Window

DIMS = Dims(heads=2, head_dim=4, max_len=16)

FILE = """
from variants.full.softmax import Softmax

class Mine(Softmax):
    pass

class Other:
    pass
"""


def test_find_knows_the_contents_page() -> None:
    assert all(find(name) is cls for name, cls in VARIANTS.items())
    assert names() == list(VARIANTS)


def test_a_slip_gets_the_nearest_name_and_the_list() -> None:
    with pytest.raises(ValueError, match=r'no variant "linfomer"; did you mean linformer.*softmax, sdpa'):
        find("linfomer")
    with pytest.raises(ValueError, match=r'no variant "xyzzy"; known: softmax'):
        find("xyzzy")


def offer(monkeypatch: pytest.MonkeyPatch, *points: tuple[str, str]) -> None:
    found = [EntryPoint(name, value, catalogue.GROUP) for name, value in points]
    monkeypatch.setattr(catalogue, "entry_points", lambda group: [p for p in found if p.group == group])


def test_find_loads_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, ("mine", "variants.full.softmax:Softmax"))
    assert find("mine") is Softmax
    assert names() == [*VARIANTS, "mine"]
    with pytest.raises(ValueError, match="did you mean mine"):
        find("mien")


def test_an_entry_point_cannot_shadow_what_is_built_in(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, ("softmax", "theirs:Softmax"))
    with pytest.raises(ValueError, match='"theirs:Softmax" offers a variant "softmax", which is built in'):
        find("anything")


def test_two_entry_points_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, ("mine", "one:A"), ("mine", "two:B"))
    with pytest.raises(ValueError, match='"one:A" and "two:B" both offer a variant "mine"'):
        find("mine")


def test_a_broken_entry_point_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, ("mine", "no_such_module_anywhere:A"), ("odd", "variants.pattern:Full"))
    with pytest.raises(ValueError, match=r'"mine" \(no_such_module_anywhere:A\) cannot be loaded'):
        find("mine")
    with pytest.raises(ValueError, match="not a subclass"):
        find("odd")


def test_load_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    mine = load(f"{path}:Mine")
    assert issubclass(mine, Softmax)
    assert load(f"{path}:Mine") is mine
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.py").write_text(FILE)
    assert load(f"{tmp_path}/other/mine.py:Mine") is not mine


def test_load_sees_that_a_file_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    before = load(f"{path}:Mine")
    path.write_text(FILE + "\nTHREE = 3\n")
    assert load(f"{path}:Mine") is not before


@pytest.mark.parametrize(
    ("where", "answer"),
    [
        ("mine.py", "written path.py:Class"),
        ("mine:Mine", "written path.py:Class"),
        ("gone.py:Mine", r'no file "gone\.py"'),
        ("good.py:Mien", 'no class "Mien"; did you mean Mine.*Other'),
        ("good.py:Other", "not a subclass of variants.interface.Attention"),
        ("bad.py:Mine", r'importing ".*bad\.py" failed: ZeroDivisionError'),
        ("worse.py:Mine", r'importing ".*worse\.py" failed: SyntaxError: .+ \(worse\.py, line 1\)$'),
        ("wordy.py:Mine", r"failed: RuntimeError\('x{50,300} \.\.\.$"),
    ],
)
def test_load_answers_mistakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, answer: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("good.py").write_text(FILE)
    Path("bad.py").write_text("1 / 0\n")
    Path("worse.py").write_text("def\n")
    Path("wordy.py").write_text("raise RuntimeError('x' * 10**6)\n")
    with pytest.raises(ValueError, match=answer):
        load(where)


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ("caps = 3", "declares no caps"),
        (
            'caps = replace(Softmax.caps, backends=("torch", "flecks"))',
            'no backend "flecks"; did you mean flex',
        ),
        ('trials = ({"width": 3})', r"trials must be a tuple .* not \{'width': 3\}; is a comma missing"),
        ("def __init__(self, dims, causal=False, width=3): ...", '"width" must stand behind a \\*'),
        ('def __init__(self, dims, *, causal=False, width: int = "x"): ...', "width must be int, not 'x'"),
    ],
)
def test_what_a_class_declares_is_read_when_it_is_found(tmp_path: Path, body: str, answer: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(f"from dataclasses import replace\n{FILE.replace('pass', body, 1)}")
    with pytest.raises(ValueError, match=rf"mine\.py:Mine.*{answer}"):
        load(f"{path}:Mine")


@pytest.mark.parametrize("cls", VARIANTS.values())
def test_what_is_built_in_declares_well(cls: type[Variant]) -> None:
    check_declared(cls, cls.__name__)


def test_a_name_in_capitals_is_near() -> None:
    with pytest.raises(ValueError, match="did you mean window"):
        find("WINDOW")


def test_a_value_out_of_bounds_is_named_with_its_variant() -> None:
    with pytest.raises(ValueError, match="Window: left must be at least 0, not -1"):
        build(Window, DIMS, causal=False, options={"left": -1})


def test_options_leave_out_dims_and_causal() -> None:
    assert list(options(Window)) == ["left", "right", "backend"]
    assert options(Window)["left"].default == 128
    assert not options(Softmax)


def test_a_constructor_of_any_keyword_is_refused() -> None:
    class Sloppy(Softmax):
        def __init__(self, dims: Dims, *, causal: bool = False, **anything: int) -> None:
            super().__init__(dims, causal=causal)

    with pytest.raises(ValueError, match="Sloppy takes any keyword"):
        build(Sloppy, DIMS, causal=False, options={"a": 1})


def test_build() -> None:
    window = build(Window, DIMS, causal=True, options={"left": 3})
    assert isinstance(window, Window)
    assert window.causal
    assert (window.near.left, window.near.right) == (3, 0)


@pytest.mark.parametrize(
    ("cls", "given", "answer"),
    [
        (Window, {"lift": 1}, 'Window has no option "lift"; did you mean left'),
        (Window, {"left": "3"}, "Window: left must be int, not '3'"),
        (Window, {"left": 3.0}, "Window: left must be int, not 3.0"),
        (Window, {"left": True}, "Window: left must be int, not True"),
        (Window, {"left": -1}, "left must be at least 0, not -1"),
        (Softmax, {"left": 1}, 'Softmax has no option "left"; known: none'),
        (Linformer, {"rank": 0}, "rank must be at least 1, not 0"),
        (Linformer, {"sharing": "layers"}, "sharing must be one of 'none', 'heads', 'kv', not 'layers'"),
        (VARIANTS["block_local"], {"block": 0}, "block must be at least 1, not 0"),
        (VARIANTS["longformer"], {"global_positions": -2}, "global_positions must be at least 0, not -2"),
    ],
)
def test_build_answers_mistakes(cls, given, answer: str) -> None:
    with pytest.raises(ValueError, match=answer):
        build(cls, DIMS, causal=False, options=given)


def test_a_missing_option_is_named() -> None:
    class Needy(Softmax):
        def __init__(self, dims: Dims, *, causal: bool = False, size: int, rate: float | None = None) -> None:
            super().__init__(dims, causal=causal)

    with pytest.raises(ValueError, match='Needy needs the option "size"'):
        check_options(Needy, {})
    check_options(Needy, {"size": 1, "rate": None})
    check_options(Needy, {"size": 1, "rate": 2})
    with pytest.raises(ValueError, match="rate must be float or None, not 'x'"):
        check_options(Needy, {"size": 1, "rate": "x"})


def test_causal_linformer_says_why_not() -> None:
    with pytest.raises(Unsupported, match="projections of Linformer mix all positions"):
        build(Linformer, DIMS, causal=True, options={})
