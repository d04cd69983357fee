"""Backends that run on CUDA only, held on a CPU against the pattern that they are built from."""

import inspect
import warnings
from pathlib import Path

import pytest
import torch

from bench import planning
from bench.resolver import Resolver
from results.cell import SpeedCell
from variants import VARIANTS
from variants.backends import BACKENDS, Backed
from variants.blocked.block_local import BlockLocal, NearBlocks
from variants.catalogue import build
from variants.contract import run_contract
from variants.full.flex import Flex
from variants.full.softmax import Softmax
from variants.interface import Attention, Dims, Request, Unsupported
from variants.kernels.flex import TILE, block_mask, flex, tiles
from variants.kernels.lists import Listed
from variants.kernels.memory_efficient import bias
from variants.options import check_options, options
from variants.pattern import Full, Near, Pattern
from variants.sparse.bigbird import BigBird
from variants.sparse.longformer import Longformer
from variants.truncated.window import Window

DIMS = Dims(heads=2, head_dim=16, max_len=512)
OFFERED = [
    pattern
    for cls in VARIANTS.values()
    if "flex" in cls.caps.backends and issubclass(cls, Attention)
    for causal in ({False, cls.caps.causal})
    if (pattern := build(cls, DIMS, causal=causal, options=cls.trials[0]).pattern) is not None
]
PATTERNS = (Full(), Full(causal=True), Near(5, 3), Near(40, 0), NearBlocks(24, 1, 0, False), *OFFERED)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_flex_computes_the_pattern(pattern: Pattern, masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # The kernel is traced, and the type checks of these tests cannot be.
    for name, method in inspect.getmembers(type(pattern), inspect.isfunction):
        monkeypatch.setattr(type(pattern), name, inspect.unwrap(method))
    q, k, v = (normal(2, 2, 300, 16, seed=s) for s in range(3))
    mask = torch.arange(300)[None, :] < torch.tensor([[300], [7]]) if masked else None
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # that it is not compiled here
        found = flex(q, k, v, pattern=pattern, key_mask=mask)
    keep = pattern.dense(300, 300) if mask is None else pattern.dense(300, 300) & mask[:, None, None]
    scores = (q @ k.transpose(-1, -2) / 4).masked_fill(~keep, -torch.inf)
    expected = scores.softmax(-1).nan_to_num() @ v
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_tiles_are_those_with_a_kept_pair(pattern: Pattern) -> None:
    n = 3 * TILE
    seen = pattern.dense(n, n).unflatten(0, (3, TILE)).unflatten(2, (3, TILE)).any(3).any(1)
    assert tiles(pattern, n, n) == int(seen.sum()) * TILE * TILE


def test_a_block_mask_is_built_once() -> None:
    cpu = torch.device("cpu")
    assert block_mask(Near(5, 3), 256, 256, cpu) is block_mask(Near(5, 3), 256, 256, cpu)


@pytest.mark.parametrize("n", [1, 127, 128, 300, 700])
def test_tiles_are_those_of_the_block_mask(n: int) -> None:
    mask = block_mask(Near(40, 130), n, n, torch.device("cpu"))
    full = 0 if mask.full_kv_num_blocks is None else int(mask.full_kv_num_blocks.sum())
    assert tiles(Near(40, 130), n, n) == (int(mask.kv_num_blocks.sum()) + full) * TILE * TILE


@pytest.mark.parametrize("pattern", [Full(causal=True), Near(5, 3), Near(2, 0), Near(0, 4)], ids=str)
def test_biases_of_xformers_keep_what_the_pattern_keeps(pattern: Pattern) -> None:
    pytest.importorskip("xformers", reason="xformers is built for Linux on x86_64 alone")
    kept = bias(pattern).materialize((12, 12)) == 0
    assert kept.equal(pattern.dense(12, 12))


def test_xformers_has_no_bias_for_any_pattern() -> None:
    pytest.importorskip("xformers", reason="xformers is built for Linux on x86_64 alone")
    assert bias(Full()) is None
    with pytest.raises(ValueError, match="no bias that keeps what NearBlocks"):
        bias(NearBlocks(4, 0, 0, False))


def test_backend_is_an_option_where_there_is_a_choice() -> None:
    assert options(Window)["backend"].default == "torch"
    assert "backend" not in options(Softmax)
    with pytest.raises(ValueError, match='Window has no backend "flx"; did you mean flex'):
        check_options(Window, {"backend": "flx"})
    with pytest.raises(ValueError, match='BlockLocal has no backend "xformers"; known: torch, flex'):
        check_options(BlockLocal, {"backend": "xformers"})


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_cannot_run_here_is_refused(backend: str) -> None:
    window = build(Window, DIMS, causal=False, options={"left": 4, "right": 4, "backend": backend})
    assert isinstance(window, Backed)
    assert window.pattern == Near(4, 4)
    request = Request(batch=1, heads=2, queries=8, keys=8, head_dim=16, device="cpu")
    assert any("CUDA" in reason for reason in window.why_not(request))
    q = normal(1, 2, 8, 16)
    with pytest.raises(Unsupported, match="CUDA"):
        window(q, q, q)


def test_its_own_backend_is_the_variant_itself() -> None:
    assert type(build(Window, DIMS, causal=False, options={"backend": "torch"})) is Window


def test_cost_of_flex_counts_tiles() -> None:
    request = Request(batch=2, heads=2, queries=3 * TILE, keys=3 * TILE, head_dim=16)
    cost = Flex(DIMS, causal=True).cost(request)
    assert cost.pairs_executed == 4 * 6 * TILE * TILE
    assert cost.pairs_useful == 4 * (3 * TILE) * (3 * TILE + 1) // 2


def test_a_backend_knows_no_parameters() -> None:
    options = {"window": 4, "global_positions": 1, "tied": False, "backend": "flex"}
    with pytest.raises(ValueError, match="parameters of its own, Longformer has no backend flex"):
        build(Longformer, DIMS, causal=False, options=options)


def test_the_contract_takes_a_backend_as_a_trial() -> None:
    class Compiled(Window):
        trials = ({"left": 3, "right": 2, "backend": "flex"},)

    findings = run_contract(Compiled, ["dense twin"])
    assert {(f.status, "CUDA" in f.message) for f in findings} == {("skipped", True)}


def test_a_backend_is_among_the_sources_of_its_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[Path]()
    monkeypatch.setattr(planning, "digest", lambda files, also: seen.extend(files) or "")
    for backend in ("torch", "flex"):
        variant = f"window(backend={backend!r})"
        planning.sources(SpeedCell.model_validate({"variant": variant, "length": 8}), Resolver())
    assert "backends.py" in {path.name for path in seen}


def bigbird(*, causal: bool = False, **options: int | str) -> Attention:
    small = {"block": 24, "window": 3, "global_blocks": 1, "random_blocks": 2, **options}
    found = build(BigBird, DIMS, causal=causal, options=small)
    assert isinstance(found, Attention)
    return found


@pytest.mark.parametrize("causal", [False, True])
def test_flex_follows_what_each_head_drew(causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, method in inspect.getmembers(Listed, inspect.isfunction):
        monkeypatch.setattr(Listed, name, inspect.unwrap(method))
    variant = bigbird(causal=causal)
    q, k, v = (normal(2, 2, 300, 16, seed=s) for s in range(3))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # that it is not compiled here
        found = flex(q, k, v, pattern=variant.static(300, q.device))
    torch.testing.assert_close(found, variant(q, k, v), rtol=1e-4, atol=1e-5)


def test_a_table_of_blocks_is_what_the_lists_keep() -> None:
    variant, rows = bigbird(), torch.arange(100)
    table = variant.static(100, torch.device("cpu"))
    assert table.heads == 2
    q = torch.zeros(1, 2, 100, 16)
    head, i, j = torch.arange(2)[:, None, None], rows[:, None], rows[None, :]
    assert table.keep_in_head(head, i, j, 100).equal(variant.kept(q, q, rows=rows)[0])
    assert table.dense(100, 100).equal(variant.kept(q, q, rows=rows)[0].any(0))
    assert variant.static(100, torch.device("cpu")) is table
    assert variant.static(200, torch.device("cpu")) is not table


def test_no_backend_follows_a_mask_that_moves_what_is_kept() -> None:
    variant = bigbird(backend="flex")
    request = Request(batch=1, heads=2, queries=96, keys=96, head_dim=16, key_mask=True, device="cuda")
    assert variant.caps.key_mask == "no"
    assert any("BigBird chooses by head and mask" in reason for reason in variant.why_not(request))


def test_tiles_are_counted_head_by_head() -> None:
    variant = bigbird(block=128, window=1, global_blocks=0)
    table = variant.static(6 * TILE, torch.device("cpu"))
    request = Request(batch=3, heads=2, queries=6 * TILE, keys=6 * TILE, head_dim=16)
    kept = int(table.keep_in_head(torch.arange(2)[:, None, None], torch.arange(0, 6 * TILE, TILE)[:, None],
                                  torch.arange(0, 6 * TILE, TILE), 6 * TILE).sum())  # fmt: skip
    assert bigbird(block=128, window=1, global_blocks=0, backend="flex").cost(request).pairs_executed == (
        3 * kept * TILE * TILE
    )


@pytest.mark.parametrize(
    ("width", "dtype", "said"),
    [(8, torch.float32, "head_dim of at least 16, not 8"), (64, torch.float64, "no float64")],
)
def test_flex_refuses_what_its_kernels_do_not_serve(width: int, dtype: torch.dtype, said: str) -> None:
    variant = Flex(Dims(heads=2, head_dim=width, max_len=64))
    request = Request(batch=1, heads=2, queries=8, keys=8, head_dim=width, dtype=dtype, device="cuda")
    assert any(said in reason for reason in variant.why_not(request))
