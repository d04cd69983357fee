"""The attention variants: what is compared. This is their contents page, one line a variant."""

from variants.blocked.axial import Axial
from variants.blocked.block_local import BlockLocal
from variants.blocked.block_sparse import BlockSparse
from variants.blocked.hierarchical import Hierarchical
from variants.blocked.moba import MoBA
from variants.blocked.shifted_window import ShiftedWindow
from variants.blocked.sinkhorn import Sinkhorn
from variants.controls.conv import Conv
from variants.controls.deltanet import DeltaNet
from variants.controls.fnet import FNet
from variants.controls.gated_linear import GatedLinear
from variants.controls.gru import Gru
from variants.controls.identity import Identity
from variants.controls.lstm import Lstm
from variants.controls.mean import Mean
from variants.controls.mlp_window import MlpWindow
from variants.controls.s4d import S4D
from variants.full.differential import Differential
from variants.full.flex import Flex
from variants.full.sdpa import Sdpa
from variants.full.softmax import Softmax
from variants.full.xformers import Xformers
from variants.interface import Variant
from variants.low_rank.based import Based
from variants.low_rank.cosformer import Cosformer
from variants.low_rank.efficient import Efficient
from variants.low_rank.hedgehog import Hedgehog
from variants.low_rank.linear import Linear
from variants.low_rank.linformer import Linformer
from variants.low_rank.luna import Luna
from variants.low_rank.nystromformer import Nystromformer
from variants.low_rank.performer import Performer
from variants.low_rank.synthesizer import Synthesizer
from variants.sparse.bigbird import BigBird
from variants.sparse.gat import GAT
from variants.sparse.graph import Graph
from variants.sparse.longformer import Longformer
from variants.sparse.lra_strided_local import LraStridedLocal
from variants.sparse.nsa import NSA
from variants.sparse.reformer import Reformer
from variants.sparse.routing import Routing
from variants.sparse.sparse_transformer import SparseTransformer
from variants.sparse.topk import TopK
from variants.truncated.chunked import Chunked
from variants.truncated.dilated_window import DilatedWindow
from variants.truncated.window import Window

VARIANTS: dict[str, type[Variant]] = {
    "softmax": Softmax,
    "sdpa": Sdpa,
    "flex": Flex,
    "xformers": Xformers,
    "differential": Differential,
    "window": Window,
    "dilated_window": DilatedWindow,
    "chunked": Chunked,
    "sparse_transformer": SparseTransformer,
    "longformer": Longformer,
    "bigbird": BigBird,
    "reformer": Reformer,
    "routing": Routing,
    "topk": TopK,
    "graph": Graph,
    "gat": GAT,
    "nsa": NSA,
    "lra_strided_local": LraStridedLocal,
    "block_local": BlockLocal,
    "block_sparse": BlockSparse,
    "sinkhorn": Sinkhorn,
    "moba": MoBA,
    "hierarchical": Hierarchical,
    "axial": Axial,
    "shifted_window": ShiftedWindow,
    "linformer": Linformer,
    "nystromformer": Nystromformer,
    "performer": Performer,
    "linear": Linear,
    "cosformer": Cosformer,
    "efficient": Efficient,
    "luna": Luna,
    "synthesizer": Synthesizer,
    "based": Based,
    "hedgehog": Hedgehog,
    "identity": Identity,
    "mean": Mean,
    "fnet": FNet,
    "lstm": Lstm,
    "gru": Gru,
    "conv": Conv,
    "mlp_window": MlpWindow,
    "s4d": S4D,
    "gated_linear": GatedLinear,
    "deltanet": DeltaNet,
}
