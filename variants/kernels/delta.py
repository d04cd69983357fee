"""The delta rule by chunks: a state that is corrected, at each position, towards the value of its key."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

# Positions to a chunk. Work inside chunks goes with it, the number of dependent steps against it.
CHUNK = 32


def delta_sums(
    q: Float[Tensor, "L N K"],
    k: Float[Tensor, "L N K"],
    v: Float[Tensor, "L N D"],
    beta: Float[Tensor, "L N"],
) -> Float[Tensor, "L N D"]:
    """out_i = S_i^T q_i of S_i = S_{i-1} + beta_i k_i (v_i - S_{i-1}^T k_i)^T, by chunks.

    Inside a chunk S_i = S + sum_{j <= i} k_j u_j^T, where S is the state before it and u solves the
    triangular system u_i + beta_i sum_{j < i} (k_i . k_j) u_j = beta_i (v_i - S^T k_i). Its inverse does not
    depend on S, so that only products with S go from chunk to chunk. Yang et al. 2024, section 3, arXiv
    2406.06484.

    Args:
        q: queries.
        k: keys, of length at most 1.
        v: values.
        beta: how far the state moves towards a value, between 0 and 1; 0 leaves it as it is.
    """
    n = q.shape[1]
    count = -(-n // CHUNK)
    q, k, v, beta = (_chunks(x, count) for x in (q, k, v, beta[:, :, None]))
    across = k.transpose(-1, -2)
    # A solve, not powers of the matrix: of keys that are much alike these grow beyond any float. It reads
    # only what lies below the diagonal.
    eye = torch.eye(CHUNK, dtype=q.dtype, device=q.device).expand(*q.shape[:2], -1, -1)
    solved = torch.linalg.solve_triangular(beta * (k @ across), eye, upper=False, unitriangular=True)
    solved = solved * beta.transpose(-1, -2)
    # Unbound at once: the gradient of a slice is as large as what it is cut from, and there are many.
    fixed, moved, inside = (x.unbind(1) for x in (solved @ v, solved @ k, (q @ across).tril()))
    queries, keys = q.unbind(1), across.unbind(1)
    state, out = q.new_zeros(q.shape[0], q.shape[-1], v.shape[-1]), list[Tensor]()
    for chunk in range(count):
        u = torch.baddbmm(fixed[chunk], moved[chunk], state, alpha=-1)
        out.append(torch.baddbmm(inside[chunk] @ u, queries[chunk], state))
        if chunk < count - 1:
            state = torch.baddbmm(state, keys[chunk], u)
    return torch.cat(out, 1)[:, :n]


def delta_flops(lines: int, n: int, key: int, value: int) -> tuple[int, int]:
    """Of the products of `delta_sums` forward and backward, as torch counts them, which leaves out solves."""
    count = -(-n // CHUNK)
    square = 2 * lines * count * CHUNK * CHUNK
    step = 2 * lines * CHUNK * key * value
    inner = square * (3 * key + 2 * value)
    # The first state is 0 and needs no gradient; the gradient of the solve is a product.
    return inner + step * (3 * count - 1), 2 * inner + step * (6 * count - 4) + square * CHUNK


def delta_kept(lines: int, n: int, key: int, value: int) -> int:
    """Numbers that `delta_sums` keeps for its backward pass, its padded inputs among them."""
    count = -(-n // CHUNK)
    return lines * (count * CHUNK * (3 * key + 2 * value + 5 * CHUNK + 1) + count * key * value)


def _chunks(x: Float[Tensor, "L N S"], count: int) -> Float[Tensor, "L C chunk S"]:
    # Laid out once: each of the products would make, and keep, a copy of its own.
    more = count * CHUNK - x.shape[1]
    return (F.pad(x, (0, 0, 0, more)) if more else x.contiguous()).unflatten(1, (count, CHUNK))
