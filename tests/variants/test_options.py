"""Every value of every option: it works, and beyond the length is as the length, or it is refused by name."""

import signal
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from types import FrameType
from typing import Any, get_args, get_type_hints

import pytest
import torch
from torch import Tensor

from variants import VARIANTS
from variants.bounds import LARGEST, LONGEST, check_idle, check_range
from variants.catalogue import build
from variants.interface import Attention, Cost, Dims, Request, Unsupported, Variant
from variants.mixer import SequenceMixer
from variants.options import options

LENGTH = 24
DIMS = Dims(heads=2, head_dim=4, max_len=LENGTH)
SMALL = (-1, 0, 1, 2, 7, LENGTH, LENGTH + 1, 10 * LENGTH, 10 * LENGTH + 1)
COUNTS = (*SMALL, 10**6, 10**6 + 1, LONGEST - 1, LONGEST, 10**12, 10**12 + 1, 10**20)
NUMBERS = (-1.0, 0.0, 1e-300, 0.5, 1.0, 1e6, 1e300, float("inf"), float("-inf"), float("nan"))
SECONDS = 10

# What needs another device is refused as a whole.
HERE = sorted(name for name in VARIANTS if VARIANTS[name].caps.backends[0] == "torch")


def modes(cls: type[Variant]) -> Iterator[dict[str, Any]]:
    """Every combination of the options that are choices."""
    hints = get_type_hints(cls.__init__)
    choices = {
        name: (True, False) if hints[name] is bool else get_args(hints[name])
        for name in options(cls)
        if name != "backend" and (hints[name] is bool or get_args(hints[name]))
    }
    return (dict(zip(choices, values, strict=True)) for values in product(*choices.values()))


def numeric() -> list[tuple[str, str]]:
    """Every option that is a number."""
    hints = {name: get_type_hints(VARIANTS[name].__init__) for name in HERE}
    return [(n, o) for n in HERE for o in options(VARIANTS[n]) if hints[n].get(o) in (int, float)]


@contextmanager
def limited() -> Generator[None]:
    """Raise if the block takes more than SECONDS."""

    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def inputs(variant: Variant, n: int, batch: int = 2) -> tuple[Tensor, ...]:
    """Of `forward`, in float64, at the sizes of the variant."""
    generator, dims = torch.Generator().manual_seed(0), variant.dims
    heads, width = dims.heads, dims.head_dim
    shape = (batch, n, heads * width) if isinstance(variant, SequenceMixer) else (batch, heads, n, width)
    count = 1 if isinstance(variant, SequenceMixer) else 3
    return tuple(torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(count))


def built(cls: type[Variant], dims: Dims, *, causal: bool, given: Mapping[str, Any]) -> Variant | ValueError:
    """The variant, or what refused it."""
    try:
        return build(cls, dims, causal=causal, options=given)
    except ValueError as refusal:
        return refusal


def tried(variant: Variant, n: int = LENGTH - 1) -> tuple[Cost, Tensor]:
    """Everything that is asked of a variant, and that its output is finite and that of its twin."""
    dims = variant.dims
    request = Request(2, dims.heads, n, n, dims.head_dim, dtype=torch.float64)
    assert variant.why_not(request) == []
    variant.cost(replace(request, key_mask=True))
    if variant.pattern is not None:
        dense = variant.pattern.dense(n, n)
        assert variant.pattern.pairs(n, n) == int(dense.sum())
        variant.pattern.picture(n)
    given = inputs(variant.double(), n)
    mask = torch.ones(2, n, dtype=torch.bool)
    mask[:, n - n // 3 :] = False
    if isinstance(variant, SequenceMixer):
        out, twin = variant(*given), variant.twin(*given)
        variant(*given, mask=mask)
    else:
        assert isinstance(variant, Attention)
        out, twin = variant(*given), variant.twin(*given, rows=torch.arange(n))
        variant(*given, key_mask=mask)
    torch.testing.assert_close(out, twin)
    assert bool(out.isfinite().all())
    return variant.cost(request), out


@pytest.mark.parametrize(("name", "option"), numeric())
def test_a_value_works_or_is_refused(name: str, option: str) -> None:
    cls = VARIANTS[name]
    values = COUNTS if get_type_hints(cls.__init__)[option] is int else NUMBERS
    for mode, causal in product(modes(cls), (False, True)):
        if causal and not cls.caps.causal:
            continue
        beyond = dict[float, tuple[Cost, Tensor]]()
        for value in values:
            with limited():
                made = built(cls, DIMS, causal=causal, given={**mode, option: value})
                if isinstance(made, ValueError):
                    assert not isinstance(made, Unsupported)
                    assert option in str(made), mode
                    assert str(value) in str(made), mode
                    continue
                found = tried(made)
            if isinstance(value, int) and value >= 10 * LENGTH:
                beyond[value] = found
        # An option without such a bound counts positions, of which there are no more: the function is the
        # same, and costs the same.
        for cost, out in beyond.values() if max(beyond, default=0) > LARGEST else ():
            first = next(iter(beyond.values()))
            assert replace(cost, reach=None, look_ahead=None) == replace(
                first[0], reach=None, look_ahead=None
            )
            assert torch.equal(out, first[1])


WITHOUT_USE = [
    ("sparse_transformer", {"pattern": "strided", "summary": 4}, "summary = 4", 'pattern = "strided"'),
    ("block_sparse", {"layout": "butterfly", "stride": 3}, "stride = 3", 'layout = "butterfly"'),
    ("graph", {"edges": "grid", "degree": 6}, "degree = 6", 'edges = "grid"'),
    ("graph", {"edges": "chain", "width": 6}, "width = 6", 'edges = "chain"'),
    ("gat", {"edges": "random", "width": 6}, "width = 6", 'edges = "random"'),
    ("synthesizer", {"kind": "dense", "rank": 3}, "rank = 3", 'kind = "dense"'),
    ("longformer", {"global_positions": 0, "tied": False}, "tied = False", "global_positions = 0"),
    ("dilated_window", {"window": 0, "dilation": 3}, "dilation = 3", "window = 0"),
]


@pytest.mark.parametrize(("name", "given", "what", "where"), WITHOUT_USE)
def test_an_option_without_use_is_refused(name: str, given: Mapping[str, Any], what: str, where: str) -> None:
    with pytest.raises(ValueError, match=f"{what} does nothing with {where}; leave it out"):
        build(VARIANTS[name], DIMS, causal=False, options=given)
    used = {key: value for key, value in given.items() if f"{key} = " not in what}
    build(VARIANTS[name], DIMS, causal=False, options=used)


@pytest.mark.parametrize("name", HERE)
def test_sizes_are_served_or_unsupported(name: str) -> None:
    cls = VARIANTS[name]
    for heads, width, n in product((1, 3), (1, 3, 7, 64, 96), (1, 2, 3, 17)):
        for causal in (False, True):
            made = built(cls, Dims(heads, width, n), causal=causal, given={})
            if isinstance(made, ValueError):
                assert isinstance(made, Unsupported), str(made)
                assert causal or width % 2
                continue
            with limited():
                tried(made, n)


@pytest.mark.parametrize("name", HERE)
def test_lengths_of_their_own_are_served_or_unsupported(name: str) -> None:
    variant = VARIANTS[name](DIMS)
    if not isinstance(variant, Attention):
        return
    for n, m in ((1, 2), (7, 3), (3, 17)):
        (q, *_), (_, k, v) = inputs(variant.double(), n), inputs(variant, m)
        if variant.caps.cross:
            assert variant(q, k, v).shape == q.shape
        else:
            with pytest.raises(Unsupported, match=f"as many queries as keys, not {n} and {m}"):
                variant(q, k, v)


def test_what_is_cut_to_max_len_is_refused_beyond() -> None:
    for name, given in (("bigbird", {"block": 4, "random_blocks": 10}), ("mlp_window", {"left": 30})):
        variant = build(VARIANTS[name], DIMS, causal=False, options=given)
        assert "was built for lengths up to 24" in variant.why_not(Request(1, 2, 25, 25, 4))[0]
    few = build(VARIANTS["bigbird"], DIMS, causal=False, options={"block": 4})
    assert few.why_not(Request(1, 2, 25, 25, 4)) == []


def test_bounds_name_the_nearest_value() -> None:
    check_range(1, 9, 2, kernel=9)
    for least, most, step, value, answer in (
        (1, 9, 1, 0, "kernel must be at least 1, not 0"),
        (1, 9, 1, 10, "kernel must be at most 9, not 10"),
        (1, 9, 2, 4, "kernel must be odd and at least 1, not 4; 3 and 5 are"),
        (2, 9, 2, 9, "kernel must be even and at most 8, not 9"),
    ):
        with pytest.raises(ValueError, match=f"^{answer}$"):
            check_range(least, most, step, kernel=value)


def test_an_option_at_its_default_is_not_idle() -> None:
    check_idle(True, VARIANTS["graph"], "here", width=32)
    check_idle(False, VARIANTS["graph"], "here", width=31)
