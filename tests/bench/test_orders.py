"""The matrix `orders` holds the claimed orders of growth against measured ones, and so names all."""

from bench.matrix import Matrix, shipped
from results.cell import MemoryCell, SpeedCell
from variants import VARIANTS
from variants.mixer import SequenceMixer

LENGTHS = {2048, 4096, 8192, 16384, 32768}


def test_every_linear_claim_is_measured_in_time_and_memory() -> None:
    cells = Matrix.read(str(shipped()["orders"])).cells()
    for name, cls in VARIANTS.items():
        if cls.caps.time_exponent > 1.0:
            continue
        scope = "layer" if issubclass(cls, SequenceMixer) else "core"
        for kind in (SpeedCell, MemoryCell):
            lengths = {
                c.length for c in cells if isinstance(c, kind) and c.variant.name == name and c.scope == scope
            }
            assert lengths == LENGTHS, f"{name} is missing from bench/matrices/orders.toml"


def test_nothing_else_is() -> None:
    cells = Matrix.read(str(shipped()["orders"])).cells()
    named = {cell.variant.name for cell in cells}
    assert {name for name in named if VARIANTS[name].caps.time_exponent > 1.0} == set()
