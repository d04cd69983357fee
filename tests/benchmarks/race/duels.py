"""Who races whom: the variants with a public implementation, and what that computes otherwise."""

from collections.abc import Callable

from tests.benchmarks.race import peers
from tests.benchmarks.race.duel import HEAD_DIM, Duel


def _always(spec: str) -> Callable[[int], str]:
    return lambda length: spec


DUELS = (
    Duel(
        _always("window(left=128, right=128)"),
        "local-attention",
        peers.local(causal=False, exact=True, around=1),
        equal=True,
        note="exact_windowsize; its default window is ragged, 128 to 255 to either side",
    ),
    Duel(
        _always("window(left=128)"),
        "local-attention",
        peers.local(causal=True, exact=True, around=1),
        causal=True,
        equal=True,
        note="exact_windowsize; its default window is ragged, 128 to 255 back",
    ),
    Duel(
        _always("block_local(block=128)"),
        "local-attention",
        peers.local(causal=False, exact=False, around=0),
        equal=True,
    ),
    Duel(
        _always("block_local(block=128)"),
        "local-attention",
        peers.local(causal=True, exact=False, around=0),
        causal=True,
        equal=True,
    ),
    Duel(
        _always("longformer(window=256, global_positions=1)"),
        "transformers Longformer",
        peers.longformer,
        equal=True,
        note="q, k and v handed to its layer",
    ),
    Duel(
        _always("bigbird(block=64, window=3, global_blocks=2, random_blocks=3)"),
        "transformers BigBird",
        peers.bigbird,
        note="its globals are the first and the last block, its random blocks others",
    ),
    Duel(
        _always("linformer(rank=128, sharing='heads')"),
        "linformer",
        peers.linformer,
        projected=True,
        equal=True,
        note="q, k and v handed to its layer",
    ),
    Duel(
        _always("efficient"),
        "linear-attention-transformer",
        peers.linear(causal=False),
        equal=True,
        # Its queries are scaled by D^(-1/2) after their softmax, ours are not.
        factor=HEAD_DIM**0.5,
    ),
    Duel(
        _always("linear"),
        "linear-attention-transformer",
        peers.linear(causal=False),
        note="another feature map: softmax over features for q, over positions for k",
    ),
    Duel(
        _always("linear"),
        "linear-attention-transformer",
        peers.linear(causal=True),
        causal=True,
        note="another feature map: softmax for q, exp for k; blind spot 1",
    ),
    *(
        Duel(
            _always("linear"),
            "performer-pytorch linear",
            peers.kernelized(causal=causal),
            causal=causal,
            equal=True,
            note="its products of features, handed elu(x) + 1" + ("; path without CUDA" if causal else ""),
        )
        for causal in (False, True)
    ),
    *(
        Duel(
            _always(f"performer(features=256, kernel='{kernel}')"),
            "performer-pytorch",
            peers.performer(causal=causal, relu=kernel == "relu"),
            causal=causal,
            note="its pads stay in the normaliser" + ("; path without CUDA" if causal else ""),
        )
        for causal in (False, True)
        for kernel in ("softmax", "relu")
    ),
    Duel(
        _always("reformer(bucket=64, hashes=4)"),
        "reformer-pytorch",
        peers.reformer(causal=False),
        note="within buckets, which is not its default; draws new rotations at each call",
    ),
    Duel(
        _always("reformer(bucket=64, hashes=4)"),
        "reformer-pytorch",
        peers.reformer(causal=True),
        causal=True,
        note="within buckets, which is not its default; draws new rotations at each call",
    ),
    Duel(
        _always("sinkhorn(block=128)"),
        "sinkhorn-transformer",
        peers.sinkhorn,
        note="takes keys for values in the sorted part; noise at each call",
    ),
    Duel(
        _always("nystromformer(landmarks=64)"),
        "nystrom-attention",
        peers.nystrom,
        projected=True,
        note="q, k and v handed to its layer, without convolution; one scale for all its pseudo-inverses",
    ),
    Duel(
        lambda length: f"routing(clusters={length // peers.ROUTED}, window={peers.ROUTED})",
        "routing-transformer",
        peers.routing,
        note="other centroids; positions in no cluster come out 0",
    ),
)
