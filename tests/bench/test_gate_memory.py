"""The gate takes little beside the call that it guards, decides no peak, and says so when it runs out."""

import pytest
import torch

from bench import gate, memory
from bench.calls import prepare
from bench.distance import digests
from bench.exhaustion import GateOutOfMemory, is_out_of_memory
from bench.gate import check
from bench.memory import cpu_peak
from bench.resolver import Resolver
from bench.scopes import Make
from bench.twins import Wrong
from results.cell import MemoryCell
from results.spec import Spec
from tests.bench.faulty import SpoilsInputs


def make(text: str) -> Make:
    return lambda dims: Resolver().build(Spec.parse(text), dims, causal=False)


def cell(variant: str = "sdpa", **fields: object) -> MemoryCell:
    return MemoryCell.model_validate({"variant": variant, "length": 4096, **fields})


@pytest.mark.parametrize(("name", "times"), [("sdpa", 1.2), ("window", 1.2), ("linear", 2.5)])
@pytest.mark.parametrize("passes", ["fwd", "fwd_bwd"])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_gate_takes_little_beside_its_call(name: str, times: float, passes: str, batch: int):
    call = prepare(cell(name, batch=batch, **{"pass": passes}), make(name), sets=1)
    call(0)
    inputs = sum(x.nbytes for x in call.inputs[0])
    assert cpu_peak(lambda _: check(call, "float32")) <= times * (cpu_peak(call) + inputs)


def test_the_gate_comes_when_all_memory_has_been_read(monkeypatch: pytest.MonkeyPatch):
    order = list[str]()
    peak, resident = memory.cpu_peak, memory.rss_peak_bytes
    monkeypatch.setattr(memory, "check", lambda *_: order.append("gate"))
    monkeypatch.setattr(memory, "cpu_peak", lambda call: order.append("peak") or peak(call))
    monkeypatch.setattr(memory, "rss_peak_bytes", lambda: order.append("resident") or resident())
    memory.measure(cell(length=64), make("sdpa"))
    assert order == ["peak", "resident", "gate"]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 8 bytes"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8 GiB.\nMore"),
        MemoryError(),
    ],
)
def test_a_gate_without_memory_says_that_it_was_the_gate(error: Exception, monkeypatch: pytest.MonkeyPatch):
    def spent(*_: object) -> None:
        raise error

    monkeypatch.setattr(gate, "errors", spent)
    with pytest.raises(GateOutOfMemory, match=r"^the correctness gate ran out of memory: [^\n]+$") as raised:
        check(prepare(cell(length=64), make("sdpa"), sets=1), "float32")
    assert is_out_of_memory(raised.value)


@pytest.mark.parametrize("scope", ["core", "layer"])
def test_spoilt_inputs_are_seen_wherever_they_came_from(scope: str):
    with pytest.raises(Wrong, match="changed its inputs"):
        check(prepare(cell(length=64, scope=scope), SpoilsInputs, sets=1), "float32")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int64])
def test_a_digest_shows_any_number_that_changes_or_moves(dtype: torch.dtype):
    x = (1000 * torch.randn(3, 5, 40_000, generator=torch.Generator().manual_seed(0))).to(dtype)
    was = digests([x])
    assert digests([x.clone()]) == was
    for place in ((0, 0, 0), (1, 2, 20_000), (2, 4, 39_999)):
        before = x[place].clone()
        x[place] += 100
        assert digests([x]) != was
        x[place] = before
    assert digests([x.flip(1)]) != was
    small = torch.ones(2, 3, dtype=dtype)
    digests([small])
    assert torch.equal(small, torch.ones(2, 3, dtype=dtype))
    assert digests([x]) == was
