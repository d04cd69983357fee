"""Laws on arithmetic: the error of floats, and the cost that a variant declares."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from variants.interface import Cost, Request
from variants.laws.asking import call, must_serve, precise, twin
from variants.laws.case import HEADS, Broken, Case, Inputs, Skipped

# Errors up to this many times SDPA's own are rounding, and no mistake in the formula is that small.
_UNITS = 8.0

# Bytes kept may stray from the declared by this part, and by this many: torch keeps small things of its own.
_BYTES_PART = 0.10
_BYTES_MORE = 256

# Where claims are asked of, long beside any window of a trial; and what logarithms add to an exponent there.
_LONG, _LOGARITHMS = 2**12, 0.1


def float_error(case: Case) -> None:
    """In every smaller type it errs from its own float64 no more than a few times what SDPA does."""
    for masked in case.masks():
        # What is compiled anew for every type is asked in its own.
        for dtype in (case.dtype,) if case.compiled else (torch.float32, torch.bfloat16, torch.float16):
            attention = case.build().to(dtype)
            x = case.draw(masked=masked).to(dtype)
            # What has no float64 of its own is compared with its twin.
            exact, y = precise(attention, x)
            own = call if not exact.why_not(y.request()) else twin
            error = _error(call(attention, x), own(exact, y))
            unit = _error(_sdpa(x), _sdpa(x.to(torch.float64)))
            if not error <= _UNITS * unit:
                raise Broken(f"in {dtype} it errs {error / unit:.1f} times as much as SDPA, by {error:.1e}")


def _error(found: Tensor, exact: Tensor) -> float:
    return float((found.detach().double() - exact.detach()).norm() / exact.detach().norm())


def _sdpa(x: Inputs) -> Tensor:
    mask = None if x.key_mask is None else x.key_mask[:, None, None, :]
    return F.scaled_dot_product_attention(x.q, x.k, x.v, attn_mask=mask)


def flops(case: Case) -> None:
    """The FLOPs of both passes are those that torch counts, to the unit."""
    if case.compiled:
        raise Skipped("torch's counter does not see into what is compiled")
    attention = case.build()
    for x in _requests(case):
        cost = attention.cost(x.request())
        with FlopCounterMode(display=False, custom_mapping=_fused_on_cpu()) as forward:
            out = call(attention, x)
        parameters = [p for p in attention.parameters() if p.requires_grad]
        with FlopCounterMode(display=False, custom_mapping=_fused_on_cpu()) as backward:
            torch.autograd.grad(out, (x.q, x.k, x.v, *parameters), torch.ones_like(out), allow_unused=True)
        for name, counted in (("flops_forward", forward), ("flops_backward", backward)):
            declared, found = getattr(cost, name), counted.get_total_flops()
            if found == 0 and (case.device, case.dtype) != ("cpu", torch.float64):
                raise Skipped("torch counts nothing in the kernel that ran")
            if declared != found:
                raise Broken(f"{name} is declared as {declared}, but torch counts {found}, {_words(x)}")


def _fused_on_cpu() -> dict[Any, Callable[..., int]]:
    """Torch's own formulas for the fused kernel on CPU, which its counter leaves out."""

    def forward(q: Tensor, k: Tensor, v: Tensor, *_: object, **__: object) -> int:
        return sdpa_flop_count(q.shape, k.shape, v.shape)

    def backward(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: object, **__: object) -> int:
        return sdpa_backward_flop_count(grad.shape, q.shape, k.shape, v.shape)

    # The counter hands shapes to a formula unless it is marked as one that reads tensors.
    forward._get_raw, backward._get_raw = True, True  # pyright: ignore
    ops = torch.ops.aten
    return {
        ops._scaled_dot_product_flash_attention_for_cpu: forward,
        ops._scaled_dot_product_flash_attention_for_cpu_backward: backward,
    }


def pairs(case: Case) -> None:
    """Useful pairs, in closed form and in cost, are those of the pattern; no fewer are computed."""
    attention = case.build()
    pattern = attention.pattern
    for x in _requests(case):
        cost = attention.cost(x.request())
        if not 0 <= cost.pairs_useful <= cost.pairs_executed:
            raise Broken(f"of {cost.pairs_executed} pairs executed, {cost.pairs_useful} are declared useful")
    if pattern is None:
        raise Skipped("it declares no pattern")
    for queries in (1, 2, 5, 12, 33):
        for keys in (1, 2, 5, 12, 33):
            counted, closed = int(pattern.dense(queries, keys).sum()), pattern.pairs(queries, keys)
            if counted != closed:
                raise Broken(f"pattern.pairs({queries}, {keys}) is {closed}, but {counted} are kept")
    for x in _requests(case):
        must_serve(attention, x)
        request = x.request()
        cost = attention.cost(request)
        counted = int(pattern.dense(request.queries, request.keys).sum()) * request.batch * request.heads
        if cost.pairs_useful != counted:
            raise Broken(f"pairs_useful is declared as {cost.pairs_useful}, but {counted} are kept")
        if cost.pairs_executed < counted:
            raise Broken(f"pairs_executed is declared as {cost.pairs_executed}, less than the {counted} kept")


def saved_bytes(case: Case) -> None:
    """The bytes kept for the backward pass are those declared, up to a tenth."""
    if case.device != "cpu":
        raise Skipped(
            f"kernels on {case.device} keep padding and statistics of their own; memory is measured"
        )
    for x in _requests(case):
        attention = case.build().float()
        x = x.to(torch.float32).detached()
        given = [x.q, x.k, x.v, *attention.parameters(), *attention.buffers()]
        if x.key_mask is not None:
            given.append(x.key_mask)
        saved = _saved(lambda a=attention, x=x: call(a, x), given)
        declared = attention.cost(x.request()).bytes_saved
        if abs(saved - declared) > _BYTES_PART * saved + _BYTES_MORE:
            raise Broken(f"bytes_saved is declared as {declared}, but {saved} are kept, {_words(x)}")


def growth(case: Case) -> None:
    """From one length to twice as much, declared FLOPs and bytes kept grow no faster than is claimed."""
    caps, costs = case.caps, [_cost_at(case, length) for length in (_LONG, 2 * _LONG)]
    for name, claimed in (
        ("flops_forward", caps.time_exponent),
        ("flops_backward", caps.time_exponent),
        ("bytes_saved", caps.memory_exponent),
    ):
        short, long = (getattr(cost, name) for cost in costs)
        if short and long > short * 2 ** (claimed + _LOGARITHMS):
            raise Broken(
                f"declared {name} grow as N^{math.log2(long / short):.2f} from N = {_LONG} to twice as much, "
                f"where N^{claimed:g} is claimed"
            )


def _cost_at(case: Case, length: int) -> Cost:
    request = Request(
        batch=1, heads=HEADS, queries=length, keys=length, head_dim=case.head_dim, device=case.device
    )
    attention = case.build(max_len=length)
    if reasons := attention.why_not(request):
        raise Skipped("; ".join(reasons))
    return attention.cost(request)


def _saved(act: Callable[[], Tensor], given: list[Tensor]) -> int:
    """Bytes of all memory that a call keeps for its backward pass, beyond that of the given tensors."""
    kept = dict[int, int]()
    alive = list[Tensor]()

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = act()
    for tensor in given:
        kept.pop(tensor.untyped_storage().data_ptr(), None)
    del out
    return sum(kept.values())


def parameters(case: Case) -> None:
    """The learned numbers are as many as declared, and all of them get a gradient."""
    attention = case.build()
    x = case.draw().detached()
    must_serve(attention, x)
    declared: Cost = attention.cost(x.request())
    counted = sum(p.numel() for p in attention.parameters())
    if declared.parameters != counted:
        raise Broken(f"parameters is declared as {declared.parameters}, but there are {counted}")
    learned = dict(attention.named_parameters())
    if not learned:
        return
    out = call(attention, x)
    found = torch.autograd.grad(out.sum(), list(learned.values()), allow_unused=True)
    for name, grad in zip(learned, list[Tensor | None](found), strict=True):
        if grad is None or not bool(grad.isfinite().all()) or not bool(grad.any()):
            raise Broken(f"parameter {name} gets no finite gradient other than 0")


def _requests(case: Case) -> list[Inputs]:
    return [case.draw(n, m, masked=masked).detached() for masked in case.masks() for n, m in case.sizes()]


def _words(x: Inputs) -> str:
    mask = ", key mask" if x.key_mask is not None else ""
    return f"{x.q.shape[2]} queries, {x.k.shape[2]} keys{mask}"
