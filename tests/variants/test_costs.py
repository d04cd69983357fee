"""Every variant's declared work is counted: FLOPs by torch, pairs by brute force. What is not is listed."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from variants import VARIANTS
from variants.contract import run_contract, unavailable
from variants.interface import Variant
from variants.laws.asking import call
from variants.laws.case import Case
from variants.laws.numbers import _fused_on_cpu

# Their kernels run on CUDA alone, and are asked there (`attnbench check --device cuda`).
ELSEWHERE = {"flex", "xformers"}

# Which pairs they keep is decided by head or by content, or they mix without pairs: no pattern gives a count.
# Their bounds are checked, and below the counts of those that keep so many whatever the content. `axial` has
# a pattern in its other mode.
WITHOUT_PATTERN = {
    "bigbird", "reformer", "routing", "topk", "nsa", "sinkhorn", "moba", "hierarchical", "axial", "linformer",
    "nystromformer", "cosformer", "luna", "lstm", "gru", "gated_linear", "deltanet",
}  # fmt: skip
COUNTED = ("bigbird", "topk")

# Two products of the width of a head and nothing else, without a mask: their FLOPs count their pairs.
TWO_PRODUCTS = (
    "softmax", "sdpa", "window", "chunked", "longformer", "sparse_transformer", "lra_strided_local",
    "block_local", "block_sparse", "bigbird", "shifted_window",
)  # fmt: skip


def cases(name: str) -> Iterator[Case]:
    cls = VARIANTS[name]
    for trial in cls.trials:
        for causal in (False, True) if cls.caps.causal else (False,):
            yield Case(cls, trial, causal)


def skipped(law: str) -> set[str]:
    """Variants of which the law says nothing at some trial; wherever it says something it must hold."""
    found = set[str]()
    for name, cls in VARIANTS.items():
        statuses = {finding.status for finding in run_contract(cls, [law])}
        assert statuses <= {"held", "skipped"}, f"{name}: {law} is {statuses}"
        found |= {name} if "skipped" in statuses else set()
    return found


def test_flops_of_every_variant_are_those_that_torch_counts():
    assert skipped("flops") == ELSEWHERE


def test_useful_pairs_of_every_pattern_are_counted():
    assert skipped("pairs") == ELSEWHERE | WITHOUT_PATTERN


def test_what_is_skipped_elsewhere_cannot_run_here():
    assert {name for name, cls in VARIANTS.items() if unavailable(cls) is not None} == ELSEWHERE


@pytest.mark.parametrize("name", COUNTED)
def test_useful_pairs_without_a_pattern_are_those_kept(name: str):
    for case in cases(name):
        attention, x = case.build(), case.draw()
        b, h, n, _ = x.q.shape
        kept = attention.kept(x.q, x.k, rows=torch.arange(n)).expand(b, h, n, n)
        assert attention.cost(x.request()).pairs_useful == int(kept.sum())


@pytest.mark.parametrize("name", TWO_PRODUCTS)
def test_executed_pairs_are_those_whose_products_torch_counts(name: str):
    for case in cases(name):
        attention, x = case.build(), case.draw()
        with FlopCounterMode(display=False, custom_mapping=_fused_on_cpu()) as counted:
            call(attention, x)
        pairs, rest = divmod(counted.get_total_flops(), 4 * case.head_dim)
        assert rest == 0
        assert attention.cost(x.request()).pairs_executed == pairs, case


def test_the_tests_above_can_fail():
    base = VARIANTS["window"]

    def short(law: str, **fields: int) -> set[str]:
        class Miscounts(base):
            def cost(self, request):  # type: ignore[no-untyped-def]
                return replace(super().cost(request), **fields)

        made: type[Variant] = Miscounts
        return {finding.status for finding in run_contract(made, [law])}

    assert "broken" in short("flops", flops_forward=1)
    assert "broken" in short("pairs", pairs_useful=1)
