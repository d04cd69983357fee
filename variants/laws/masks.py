"""Laws on key masks and padding: what is not there has no influence, and nothing at all gives 0."""

import contextlib
import math
from dataclasses import replace

import torch

from variants.laws.asking import call, gradients, must_serve, precise, same, twin, without_keys
from variants.laws.case import Broken, Case, Inputs, Skipped
from variants.laws.lifted import Lifted
from variants.mixer import as_mixer

_HUGE = 1e30
# Of which the scores are still exact enough for a kernel that computes them again in its backward pass.
_JUNK = 1e6


def _needs_masks(case: Case) -> None:
    if case.caps.key_mask == "no":
        raise Skipped("it takes no key mask")


def padding(case: Case) -> None:
    """Huge numbers or NaN at masked keys, or more masked keys at the end, change no valid row or gradient.

    Nor does junk in padded queries, where a NaN may enter gradients: a kernel multiplies it by 0.
    """
    _needs_masks(case)
    attention = case.build()
    x = case.draw(masked=True)
    assert x.key_mask is not None
    expected = call(attention, x)
    drop = ~x.key_mask[:, None, :, None]
    huge = Inputs(x.q, x.k.masked_fill(drop, _HUGE), x.v.masked_fill(drop, -_HUGE), x.key_mask)
    same(call(attention, huge), expected, "huge numbers at masked keys")
    for count in (1, 9):
        longer = _append(x, count)
        out = call(attention, longer)[:, :, : x.q.shape[2]]
        same(out, expected, f"{count} more positions, masked")
    _junk_queries(case)
    for dtype in dict.fromkeys((case.dtype, torch.float32)):
        for pad in (math.nan, torch.finfo(dtype).max):
            _pads_without_slope(case, dtype, pad)


def _pads_without_slope(case: Case, dtype: torch.dtype, pad: float) -> None:
    """What stands in masked keys and values changes no output and no gradient; theirs is exactly 0."""
    attention = case.build().to(dtype)
    x = case.draw(masked=True).to(dtype)
    assert x.key_mask is not None
    drop = ~x.key_mask[:, None, :, None]
    plain = Inputs(x.q, x.k.masked_fill(drop, 0.0), x.v.masked_fill(drop, 0.0), x.key_mask)
    padded = Inputs(x.q, x.k.masked_fill(drop, pad), x.v.masked_fill(drop, pad), x.key_mask)
    found = list[list[torch.Tensor]]()
    for one in (padded, plain):
        own = one.detached()
        out = call(attention, own)
        found.append([out, *gradients(out, own)])
    where = f"{pad:.1e} at masked keys, {dtype}"
    for name, one, other in zip(("output", *"qkv"), *found, strict=True):
        same(one, other, f"{'' if name == 'output' else 'gradient of '}{name}, {where}")
    for name, grad in zip("kv", found[0][2:], strict=True):
        if bool((grad.masked_select(drop) != 0).any()):
            raise Broken(f"the gradient of {name} is not 0 where it is masked, {where}")


def _junk_queries(case: Case) -> None:
    """What stands in padded queries changes no other row, and if it is finite no gradient of the others."""
    attention = case.build()
    x = case.draw(masked=True).detached()
    assert x.key_mask is not None
    drop = ~x.key_mask[:, None, :, None]
    expected = call(attention, x).masked_fill(drop, 0.0)
    for junk in (math.nan, _HUGE):
        out = call(attention, replace(x, q=x.q.detach().masked_fill(drop, junk)))
        same(out.masked_fill(drop, 0.0), expected, f"{junk:.1e} in padded queries")
    junk = replace(x, q=x.q.masked_fill(drop, _JUNK)).detached()
    found = gradients(call(attention, junk).masked_fill(drop, 0.0), junk)
    for name, one, other in zip("qkv", found, gradients(expected, x), strict=True):
        one, other = one.masked_fill(drop, 0.0), other.masked_fill(drop, 0.0)
        same(one, other, f"gradient of {name}, {_JUNK:.1e} in padded queries")


def _append(x: Inputs, count: int) -> Inputs:
    """More positions at the end, masked and huge."""
    q, k, v = (torch.nn.functional.pad(t, (0, 0, 0, count), value=_HUGE) for t in (x.q, x.k, x.v))
    mask = torch.ones_like(x.k[:, 0, :, 0], dtype=torch.bool) if x.key_mask is None else x.key_mask
    return Inputs(q, k, v, torch.nn.functional.pad(mask, (0, count)))


def deletion(case: Case) -> None:
    """Masking keys equals deleting them: any where positions do not matter, else those at the end."""
    if case.caps.key_mask != "exact":
        raise Skipped("it does not claim exact key masks")
    attention = case.build()
    x = case.draw(batch=1)
    n = x.k.shape[2]
    if case.cls.caps.cross and not case.causal:
        kept = torch.arange(n, device=case.device) % 3 != 1
        short = Inputs(x.q, x.k[:, :, kept], x.v[:, :, kept])
        out = call(attention, Inputs(x.q, x.k, x.v, kept[None, :]))
    else:
        kept = torch.arange(n, device=case.device) < n - 11
        short = Inputs(x.q[:, :, kept], x.k[:, :, kept], x.v[:, :, kept])
        out = call(attention, Inputs(x.q, x.k, x.v, kept[None, :]))[:, :, kept]
    same(out, call(attention, short), "masked keys against deleted ones")


def no_key_left(case: Case) -> None:
    """A query without keys gives exactly 0; so are its gradients, and all gradients are finite.

    The twin says so too, and where nothing is left at all there is still a gradient, of 0.
    """
    _needs_masks(case)
    attention = case.build()
    x = case.draw(masked=True).detached()
    assert x.key_mask is not None
    x.key_mask[0] = False
    x.key_mask[1, :70] = False
    out = call(attention, x)
    empty = without_keys(attention, x)
    if not bool((out[empty] == 0).all()):
        raise Broken("a query without keys gives other than 0")
    found = gradients(out, x)
    for name, grad in zip("qkv", found, strict=True):
        if not bool(grad.isfinite().all()):
            raise Broken(f"the gradient of {name} is not finite")
    if not bool((found[0][empty] == 0).all()):
        raise Broken("the gradient of a query without keys is not 0")
    for name, grad in zip("kv", found[1:], strict=True):
        if not bool((grad[0] == 0).all()):
            raise Broken(f"the gradient of {name} is not 0 in an example without keys")
    with contextlib.suppress(Skipped):
        same(out, twin(*precise(attention, x)), "against the twin, where queries have no key")
    x = replace(x, key_mask=torch.zeros_like(x.key_mask))
    out = call(attention, x)
    for name, one in zip(("output", *"qkv"), (out, *gradients(out, x)), strict=True):
        if bool((one != 0).any()):
            what = "output" if name == "output" else f"gradient of {name}"
            raise Broken(f"the {what} is not 0 where all keys of all examples are masked")


def mixer(case: Case) -> None:
    """The layer around it gives 0 at padded rows, and padding changes nothing at the others."""
    _needs_masks(case)
    attention = case.build()
    variant = attention.mixer if isinstance(attention, Lifted) else attention
    layer = case.place(as_mixer(variant, generator=torch.Generator().manual_seed(4)))
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(2, 50, case.width, generator=generator, dtype=torch.float64).to(case.device, case.dtype)
    mask = torch.arange(50, device=case.device) < torch.tensor([[50], [31]], device=case.device)
    must_serve(attention, case.draw(50, masked=True))
    out = layer(x, mask=mask)
    if bool((out[1, 31:] != 0).any()):
        raise Broken("a padded row is not 0")
    junk = x.masked_fill(~mask[:, :, None], 1e6)
    same(layer(junk, mask=mask), out, "numbers in padded rows")
    longer = torch.nn.functional.pad(x, (0, 0, 0, 7), value=3.0)
    same(layer(longer, mask=torch.nn.functional.pad(mask, (0, 7)))[:, :50], out, "7 more padded rows")
