"""Laws on what is computed: the dense twin, the exact limit, the effective matrix, the gradients."""

import torch
from torch import Tensor

from variants.interface import Attention, Dims, masked_softmax
from variants.laws.asking import (
    TOLERANCE,
    call,
    kept,
    precise,
    same,
    slopes,
    twin,
    unbiased,
    upstream,
    without_keys,
)
from variants.laws.case import HEADS, Broken, Case, Inputs, Skipped
from variants.laws.lifted import lift
from variants.pattern import Full

# Heads and their width, other than everywhere else, and a length that is no multiple of them.
_WIDTHS = ((3, 6), (1, 16))
_SHORT = 37

# Around 1, around small blocks, around the chunks of the executors.
_ODD = (1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 17, 31, 32, 33, 63, 64, 65, 79, 80, 81, 96, 128, 129, 150)
# Each is a compilation: a single position, and one more than a tile.
_ODD_COMPILED = (1, 129)


def dense_twin(case: Case) -> None:
    """Compare forward with the twin, at several sizes, with and without a mask; and rows of the twin."""
    attention = case.build()
    for masked in case.masks():
        for queries, keys in case.sizes():
            x = case.draw(queries, keys, masked=masked)
            exact, y = precise(attention, x)
            whole = twin(exact, y)
            where = f"{queries} queries, {keys} keys{', key mask' if masked else ''}"
            out = call(attention, x)
            same(out, whole, f"forward against its twin, {where}")
            unbiased(out, whole, f"forward against its twin, {where}")
            some = torch.arange(0, queries, 5, device=y.q.device)
            rows = exact.twin(y.q, y.k, y.v, rows=some, key_mask=y.key_mask)
            same(rows, whole[:, :, some], f"every fifth row of the twin against all, {where}")


def exact_limit(case: Case) -> None:
    """Compare the exact limit with softmax attention at the length, and the widths, that it was built for."""
    if not case.cls.caps.exact_when:
        raise Skipped("it never equals softmax attention, and does not claim to")
    if case.again:
        raise Skipped("its limit is that of the options, whatever the backend")
    lengths = (97,) if case.compiled else (1, 5, 33, 97)
    shapes = [Dims(HEADS, case.head_dim, n) for n in lengths]
    shapes += [Dims(heads, head_dim, _SHORT) for heads, head_dim in _WIDTHS if not case.compiled]
    for dims in shapes:
        for masked in (False, True) if case.caps.key_mask == "exact" else (False,):
            _compare_limit(case, dims, masked=masked)


def _compare_limit(case: Case, dims: Dims, *, masked: bool) -> None:
    limit = case.place(lift(case.cls.exact_limit(dims, causal=case.causal)))
    n = dims.max_len
    x = case.draw(n, masked=masked, heads=dims.heads, head_dim=dims.head_dim)
    keep = Full(case.causal).dense(n, n).to(case.device)
    if x.key_mask is not None:
        keep = keep & x.key_mask[:, None, None, :]
    exact = x.to(torch.float64)
    softmax = masked_softmax(exact.q, exact.k, keep) @ exact.v
    where = f"{n} positions, {dims.heads} heads of width {dims.head_dim}"
    same(call(limit, x), softmax, f"the exact limit at {where}")


def read_out(case: Case) -> None:
    """Read the effective matrix off v = identity and compare it with pattern and capabilities."""
    if not case.cls.caps.linear_in_v:
        raise Skipped("it is not linear in v, so it has no effective matrix")
    attention = case.build()
    for masked in case.masks():
        x = case.draw(masked=masked)
        matrix = _effective(attention, x, case.head_dim).detach()
        same(call(attention, x), matrix @ x.v, "forward against its effective matrix: not linear in v")
        keep = kept(attention, x)
        if keep is not None:
            _compare_support(matrix, keep.expand_as(matrix))
        if case.cls.caps.row_stochastic:
            if float(matrix.min()) < -1e-12:
                raise Broken(f"a weight is negative: {float(matrix.min()):.1e}")
            expected = (~without_keys(attention, x)).to(matrix.dtype)
            same(matrix.sum(-1), expected, "sums of weights against 1, or 0 without keys")


def _effective(attention: Attention, x: Inputs, head_dim: int) -> Tensor:
    """The matrix A of out = A v, a slab of D columns a call."""
    m = x.k.shape[2]
    columns = torch.eye(m, dtype=x.v.dtype, device=x.v.device)
    slabs = list[Tensor]()
    for start in range(0, m, head_dim):
        slab = columns[:, start : start + head_dim]
        width = slab.shape[1]
        slab = torch.nn.functional.pad(slab, (0, head_dim - width))
        out = call(attention, Inputs(x.q, x.k, slab.expand_as(x.v).clone(), x.key_mask))
        slabs.append(out[..., :width])
    return torch.cat(slabs, -1)


def _compare_support(matrix: Tensor, keep: Tensor) -> None:
    strays = (matrix != 0) & ~keep
    if bool(strays.any()):
        _, _, i, j = strays.nonzero()[0].tolist()
        raise Broken(f"query {i} gives weight {float(matrix[strays][0]):.1e} to key {j}, outside the pattern")
    missing = (matrix == 0) & keep
    if bool(missing.any()):
        _, _, i, j = missing.nonzero()[0].tolist()
        raise Broken(f"query {i} gives no weight to key {j}, which its pattern keeps")


def zero_values(case: Case) -> None:
    """Values of 0 give exactly 0."""
    if not case.cls.caps.linear_in_v:
        raise Skipped("it is not linear in v")
    attention = case.build()
    x = case.draw()
    out = call(attention, Inputs(x.q, x.k, torch.zeros_like(x.v)))
    if bool((out != 0).any()):
        raise Broken(f"v = 0 gives {float(out.abs().amax()):.1e}")


def gradient(case: Case) -> None:
    """Compare gradients of q, k, v and parameters with the twin's, or without a twin with differences."""
    attention = case.build()
    for masked in case.masks():
        x = case.draw(masked=masked).detached()
        leaves = _leaves(attention, x)
        found = slopes(call(attention, x), list(leaves.values()))
        exact, y = precise(attention, x)
        try:
            expected = slopes(twin(exact, y), list(_leaves(exact, y).values()))
        except Skipped:
            if case.dtype != torch.float64:
                raise
            _against_differences(attention, x, leaves, found)
            continue
        for name, one, other in zip(leaves, found, expected, strict=True):
            what = f"gradient of {name}{' with a key mask' if masked else ''}"
            # A parameter may be kept more precisely than what it meets.
            same(one, other, what, tolerance=TOLERANCE[case.dtype])


def _leaves(attention: Attention, x: Inputs) -> dict[str, Tensor]:
    """What has a gradient, by name."""
    learned = {name: p for name, p in attention.named_parameters() if p.requires_grad}
    return {"q": x.q, "k": x.k, "v": x.v, **learned}


def _against_differences(
    attention: Attention, x: Inputs, leaves: dict[str, Tensor], found: list[Tensor]
) -> None:
    """One random direction, by central differences."""
    step = 1e-6
    generator = torch.Generator().manual_seed(3)
    ways = [torch.randn(g.shape, generator=generator, dtype=g.dtype).to(g.device) for g in found]
    ends = list[Tensor]()
    with torch.no_grad():
        for signed in (step, -step):
            _move(leaves, ways, signed)
            ends.append(call(attention, x))
            _move(leaves, ways, -signed)
    slope = ((ends[0] - ends[1]) * upstream(ends[0])).sum() / (2 * step)
    inner = torch.stack([(g * w).sum() for g, w in zip(found, ways, strict=True)]).sum()
    same(inner, slope, "gradient against central differences", tolerance=1e-5)


def _move(leaves: dict[str, Tensor], ways: list[Tensor], step: float) -> None:
    for leaf, way in zip(leaves.values(), ways, strict=True):
        leaf.add_(way, alpha=step)


def widths(case: Case) -> None:
    """Forward is the twin at other numbers of heads and other head widths too."""
    if case.again:
        raise Skipped("a compilation for each; asked of the torch backend")
    served = 0
    for heads, head_dim in _WIDTHS:
        attention = case.build(heads=heads, head_dim=head_dim)
        where = f"{heads} heads of width {head_dim}"
        for masked in case.masks():
            x = case.draw(_SHORT, masked=masked, heads=heads, head_dim=head_dim)
            if attention.why_not(x.request()):
                continue
            served += 1
            _compare_if_twin(attention, x, where)
    if not served:
        raise Skipped(f"it serves {_SHORT} positions at no other width")


def odd_sizes(case: Case) -> None:
    """Every length works: finite, and equal to the twin where there is one; so does a single key."""
    attention = case.build()
    lengths, served = _ODD_COMPILED if case.compiled else _ODD, 0
    for n in lengths:
        x = case.draw(n)
        if attention.why_not(x.request()):
            continue
        served += 1
        _compare_if_twin(attention, x, f"{n} positions")
        # Where a sum is divided by its norm, a single key may leave half types nothing but rounding.
        if case.caps.key_mask != "no" and case.dtype in (torch.float64, torch.float32):
            mask = torch.zeros(x.k.shape[0], n, dtype=torch.bool, device=case.device)
            mask[:, n // 2] = True
            _compare_if_twin(
                attention, Inputs(x.q, x.k, x.v, mask), f"{n} positions, all keys but one masked"
            )
    if not served:
        raise Skipped(f"it serves no length of {lengths}")


def _compare_if_twin(attention: Attention, x: Inputs, where: str) -> None:
    try:
        out = call(attention, x)
    except (Broken, Skipped):
        raise
    except Exception as error:
        raise Broken(f"{where}: {type(error).__name__}: {error}") from error
    try:
        expected = twin(*precise(attention, x))
    except Skipped:
        expected = out
    same(out, expected, where)
