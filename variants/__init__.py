"""The attention variants: what is compared. This is their contents page, one line a variant."""

from variants.blocked.block_local import BlockLocal
from variants.controls.identity import Identity
from variants.controls.mean import Mean
from variants.full.flex import Flex
from variants.full.sdpa import Sdpa
from variants.full.softmax import Softmax
from variants.full.xformers import Xformers
from variants.interface import Variant
from variants.low_rank.linear import Linear
from variants.low_rank.linformer import Linformer
from variants.sparse.longformer import Longformer
from variants.truncated.window import Window

VARIANTS: dict[str, type[Variant]] = {
    "softmax": Softmax,
    "sdpa": Sdpa,
    "flex": Flex,
    "xformers": Xformers,
    "window": Window,
    "longformer": Longformer,
    "block_local": BlockLocal,
    "linformer": Linformer,
    "linear": Linear,
    "identity": Identity,
    "mean": Mean,
}
