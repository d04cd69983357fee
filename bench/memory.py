"""The memory protocol: how much one call takes beyond its inputs and parameters.

On a CPU the allocator's own events are added up, which counts the scratch inside native kernels; on
CUDA the allocator's counters are read. A pass of its own: neither is on when anything is timed.
"""

import resource
import sys
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.profiler import profile

from bench.calls import Call, prepare
from bench.compiling import made_since, parts
from bench.distance import digests
from bench.gate import check, refuse_if_changed
from bench.scopes import Make
from results.cell import MemoryCell
from results.record import Memory


def measure(cell: MemoryCell, make: Make) -> Memory:
    """Measure the memory of one call.

    Raises:
        Unsupported: the variant does not have what the cell asks.
        NotFinite, Wrong: the call does not pass the gate.
        NotCompiled: torch.compile was asked for, and made nothing of it.
    """
    nothing = parts() if cell.compile else None
    call = prepare(cell, make, sets=1)
    before = digests(call.inputs[0])
    # The first call fills caches that outlive it (libraries' own buffers): those are not its peak.
    call(0)
    saved = saved_bytes(call) if call.backward else None
    if call.optimizer is not None:
        # The gradients of a step are part of it, and not of what was there before.
        call.optimizer.zero_grad(set_to_none=True)
    reserved = used = None
    if cell.device == "cuda":
        peak, reserved = _cuda_peak(call)
        free, total = torch.cuda.mem_get_info()
        used = total - free
    else:
        peak = cpu_peak(call)
    resident = rss_peak_bytes()
    # The gate takes memory of its own, and comes when all has been read.
    refuse_if_changed(call.inputs[0], before)
    check(call, cell.dtype)
    if nothing is not None:
        made_since(nothing)
    return Memory(
        peak_bytes=peak,
        saved_bytes=saved,
        inputs_bytes=sum(tensor.nbytes for tensor in call.inputs[0]),
        optimizer_bytes=None if call.optimizer is None else _state_bytes(call.optimizer),
        reserved_bytes=reserved,
        device_used_bytes=used,
        rss_peak_bytes=resident,
        declared_saved_bytes=call.cost().bytes_saved if cell.scope == "core" else None,
    )


def cpu_peak(call: Callable[[int], object]) -> int:
    """The most bytes that were allocated at a time during one call, above what was before it."""
    seen = profile(profile_memory=True)
    with seen:
        kept = call(0)
    del kept
    assert seen.kineto_results is not None
    now = peak = 0
    for event in seen.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()  # pyright: ignore[reportAttributeAccessIssue] - missing in torch's stub
            peak = max(peak, now)
    return peak


def _cuda_peak(call: Call) -> tuple[int, int]:
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    kept = call(0)
    torch.cuda.synchronize()
    del kept
    return torch.cuda.max_memory_allocated() - before, torch.cuda.max_memory_reserved()


def saved_bytes(call: Call) -> int:
    """Bytes of all storages kept for the backward pass, those of inputs and parameters aside."""
    inputs = call.inputs[0]
    known = {tensor.untyped_storage().data_ptr() for tensor in (*inputs, *call.module.parameters())}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def unpack(tensor: Tensor) -> Tensor:
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        out = call.run(*inputs)
    # The output is the caller's as well as the backward pass's; it counts if it is kept.
    del out
    return sum(kept.values())


def _state_bytes(optimizer: torch.optim.Optimizer) -> int:
    states = optimizer.state_dict()["state"].values()
    return sum(kept.nbytes for state in states for kept in state.values() if isinstance(kept, Tensor))


def rss_peak_bytes() -> int:
    """The most resident memory that this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return peak if sys.platform == "darwin" else peak * 1024
