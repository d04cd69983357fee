"""The public implementations, each built like ours.

Each import stands in the function that needs it: importing this module needs none of the peers.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.benchmarks.race.duel import BATCH, HEAD_DIM, HEADS
from tests.benchmarks.race.layouts import Chunks, Core, Given, fill, merged

WIDTH = HEADS * HEAD_DIM

# Positions to a cluster of routing attention: the window that its peer's layers are built with.
ROUTED = 128


def split(x: Tensor) -> Tensor:
    """(B, N, E) to (B, H, N, D)."""
    return x.unflatten(-1, (HEADS, HEAD_DIM)).transpose(1, 2)


def local(*, causal: bool, exact: bool, around: int) -> Callable[[nn.Module, int], nn.Module]:
    """local-attention, without rotary positions, which would make it another function."""

    def build(ours: nn.Module, length: int) -> nn.Module:
        from local_attention import LocalAttention

        del ours, length
        return LocalAttention(
            window_size=128,
            causal=causal,
            look_backward=around,
            look_forward=0 if causal else around,
            exact_windowsize=exact,
            use_rotary_pos_emb=False,
        )

    return build


def linformer(ours: Any, length: int) -> nn.Module:
    """linformer's layer between its projections, an E and an F shared by all heads."""
    from linformer import LinformerSelfAttention

    peer = LinformerSelfAttention(WIDTH, seq_len=length, k=128, heads=HEADS)
    peer.to_q, peer.to_k, peer.to_v, peer.to_out = Given(), Given(), Given(), nn.Identity()
    fill(peer.proj_k, ours.e[0].T)
    fill(peer.proj_v, ours.f[0].T)

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = merged(q), merged(k), merged(v)
        with peer.to_q.hands_out(q), peer.to_k.hands_out(k), peer.to_v.hands_out(v):
            return split(peer(q))

    return Core(call, peer)


def linear(*, causal: bool) -> Callable[[nn.Module, int], nn.Module]:
    """The functions inside linear-attention-transformer's layer."""

    def build(ours: nn.Module, length: int) -> nn.Module:
        from linear_attention_transformer import linear_attention_transformer as package

        del ours, length
        if causal:
            # The layer's own default: sums position by position, with no blind spot.
            return Core(lambda q, k, v: package.causal_linear_attn(q, k, v, bucket_size=1))
        return Core(package.linear_attn)

    return build


def kernelized(*, causal: bool) -> Callable[[nn.Module, int], nn.Module]:
    """performer-pytorch's products of features, under elu(x) + 1; causal, its path without CUDA."""

    def build(ours: nn.Module, length: int) -> nn.Module:
        import setuptools  # noqa: F401 - as below
        from performer_pytorch import performer_pytorch as package

        del ours, length
        call = package.causal_linear_attention_noncuda if causal else package.linear_attention
        return Core(lambda q, k, v: call(F.elu(q) + 1.0, F.elu(k) + 1.0, v))

    return build


def performer(*, causal: bool, relu: bool) -> Callable[[nn.Module, int], nn.Module]:
    """performer-pytorch's core; causal, its path without CUDA."""

    def build(ours: nn.Module, length: int) -> nn.Module:
        import setuptools  # noqa: F401 - brings distutils, which the peer imports, where Python no longer does
        from performer_pytorch import FastAttention

        del ours, length
        peer = FastAttention(HEAD_DIM, nb_features=256, causal=causal, generalized_attention=relu)
        return Core(lambda q, k, v: peer(q, k, v), peer)

    return build


def reformer(*, causal: bool) -> Callable[[nn.Module, int], nn.Module]:
    """reformer-pytorch's core, on shared queries and keys."""

    def build(ours: nn.Module, length: int) -> nn.Module:
        from reformer_pytorch import LSHAttention

        del ours, length
        peer = LSHAttention(bucket_size=64, n_hashes=4, causal=causal, attend_across_buckets=False)

        def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            del q
            return peer(k.flatten(0, 1), v.flatten(0, 1))[0].unflatten(0, (BATCH, HEADS))

        return Core(call, peer)

    return build


def sinkhorn(ours: nn.Module, length: int) -> nn.Module:
    """sinkhorn-transformer's core with Sinkhorn balancing, which is not its default."""
    from sinkhorn_transformer.sinkhorn_transformer import SinkhornAttention

    del ours
    return SinkhornAttention(128, WIDTH, HEAD_DIM, HEADS, length, non_permutative=False)


def nystrom(ours: nn.Module, length: int) -> nn.Module:
    """nystrom-attention's layer between its projections, without the convolution that it adds."""
    from nystrom_attention import NystromAttention

    del ours, length
    peer = NystromAttention(WIDTH, dim_head=HEAD_DIM, heads=HEADS, num_landmarks=64, residual=False)
    peer.to_qkv, peer.to_out = Given(), nn.Identity()

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = merged(q), merged(k), merged(v)
        with peer.to_qkv.hands_out(Chunks((q, k, v))):
            return split(peer(q))

    return Core(call, peer)


def routing(ours: nn.Module, length: int) -> nn.Module:
    """routing-transformer's core."""
    from routing_transformer.routing_transformer import KmeansAttention

    del ours
    peer = KmeansAttention(length // ROUTED, ROUTED, HEADS, HEAD_DIM)
    return Core(lambda q, k, v: peer(q, k, v)[0], peer)


def longformer(ours: nn.Module, length: int) -> nn.Module:
    """The layer of transformers between its projections: q, k and v are handed to it instead."""
    from transformers import LongformerConfig
    from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

    del ours
    config = LongformerConfig(
        hidden_size=WIDTH,
        num_attention_heads=HEADS,
        attention_window=[512],
        attention_probs_dropout_prob=0.0,
    )
    peer: Any = LongformerSelfAttention(config, 0)
    # One set of projections for global rows and others, as the mechanism is without weights of its own.
    peer.query = peer.query_global = Given()
    peer.key, peer.value = Given(), Given()
    peer.key_global, peer.value_global = peer.key, peer.value
    is_global = torch.zeros(BATCH, length, dtype=torch.bool)
    is_global[:, 0] = True
    none_masked, mask = torch.zeros_like(is_global), is_global.float() * 10_000.0

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # The layer works on (N, B, E) inside; what stands for its projections must hand that out.
        with peer.key.hands_out(merged(k).transpose(0, 1)), peer.value.hands_out(merged(v).transpose(0, 1)):
            out = peer(
                merged(q),
                attention_mask=mask,
                is_index_masked=none_masked,
                is_index_global_attn=is_global,
                is_global_attn=True,
            )[0]
        return split(out)

    return Core(call, peer)


def bigbird(ours: nn.Module, length: int) -> nn.Module:
    """The function inside the layer of transformers, with the masks that its model makes once a batch."""
    from transformers import BigBirdConfig
    from transformers.models.big_bird.modeling_big_bird import BigBirdBlockSparseAttention, BigBirdModel

    del ours
    config = BigBirdConfig(
        hidden_size=WIDTH,
        num_attention_heads=HEADS,
        block_size=64,
        num_random_blocks=3,
        max_position_embeddings=length,
    )
    peer: Any = BigBirdBlockSparseAttention(config, seed=0)
    peer.query = peer.key = peer.value = None
    blocked, band, rows, columns = BigBirdModel.create_masks_for_block_sparse_attn(
        torch.ones(BATCH, length), 64
    )

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # In evaluation it takes block 0 for all random blocks; in training it draws them.
        peer.training = True
        out, _ = peer.bigbird_block_sparse_attention(
            q, k, v, band, rows, columns, blocked, blocked,
            HEADS, 3, HEAD_DIM, 64, 64, BATCH, length, length,
            seed=0, plan_from_length=None, plan_num_rand_blocks=None, output_attentions=False,
        )  # fmt: skip
        return out.transpose(1, 2)

    return Core(call, peer)
