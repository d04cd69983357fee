"""Tracks: protocols of training that have a name, and what the name promises.

A track is what scores must share before they may stand in one table. Anyone may name one of their own; the
names below are taken, and a cell that carries one of them and is trained otherwise is refused. Steps, batch
and warm-up are left to the cell: they differ from task to task, and the tables state them.

    lra-small    the small PyTorch models of Long Range Arena: Xiong et al. 2021, Nystromformer, arXiv
                 2102.03902, whose tables FlashAttention and xformers continue
    lra-modern   a network of the size of S4 (Gu et al. 2022, arXiv 2111.00396) with rotary positions
                 (Su et al. 2021, arXiv 2104.09864); its scores compare with each other and with no table
"""

from collections.abc import Mapping

Setting = str | int | float | bool

# By field of a training cell.
TRACKS: Mapping[str, Mapping[str, Setting]] = {
    "lra-small": {
        "causal": False, "layers": 2, "heads": 2, "head_dim": 32, "ffn": 128, "positions": "learned",
        "pooling": "tokens", "padding": "longest", "dropout": 0.1, "learning_rate": 1e-4,
        "schedule": "one_cycle", "epsilon": 1e-6, "weight_decay": 0.0, "clip": 0.0,
        "batching": "shuffled", "dtype": "float32", "autocast": "no", "compile": False,
    },
    "lra-modern": {
        "causal": False, "layers": 6, "heads": 4, "head_dim": 64, "ffn": 512, "positions": "rotary",
        "pooling": "tokens", "padding": "longest", "dropout": 0.1, "schedule": "cosine",
        "weight_decay": 0.05, "epsilon": 1e-8, "clip": 1.0, "dtype": "float32", "autocast": "no",
    },
}  # fmt: skip


def broken(track: str, fields: Mapping[str, object]) -> str:
    """What a cell with these fields does otherwise than its track says; "" if nothing."""
    wrong = {name: value for name, value in TRACKS.get(track, {}).items() if fields[name] != value}
    if not wrong:
        return ""
    promised = ", ".join(f"{name} = {value!r}, not {fields[name]!r}" for name, value in wrong.items())
    return f"the track {track} has {promised}; to train otherwise leave track out, or name one of your own"
