"""Under autocast whatever runs without it runs, and what must be precise stays so."""

import pytest
import torch

from variants import VARIANTS
from variants.laws.case import Case

CONTROLS = [name for name, cls in VARIANTS.items() if cls.caps.family == "control"]


@pytest.mark.parametrize("name", [*CONTROLS, "hierarchical", "luna", "synthesizer"])
def test_both_passes_run_under_autocast(name: str) -> None:
    cls = VARIANTS[name]
    for causal in (False, True) if cls.caps.causal else (False,):
        case = Case(cls, cls.trials[0], causal)
        for masked in case.masks():
            for dtype in (torch.float32, torch.bfloat16):
                attention, x = case.build().float(), case.draw(masked=masked).to(dtype).detached()
                if attention.why_not(x.request()):
                    continue
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    out = attention(x.q, x.k, x.v, key_mask=x.key_mask)
                grads = torch.autograd.grad(out.float().sum(), (x.q, x.k, x.v), allow_unused=True)
                assert all(grad is None or bool(grad.isfinite().all()) for grad in grads)


@pytest.mark.parametrize("name", ["hierarchical", "lstm", "gru", "mlp_window"])
def test_autocast_changes_nothing_in_what_it_is_kept_out_of(name: str) -> None:
    case = Case(VARIANTS[name], VARIANTS[name].trials[0], causal=False)
    attention, x = case.build().float(), case.draw(masked=True).to(torch.float32)
    expected = attention(x.q, x.k, x.v, key_mask=x.key_mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = attention(x.q, x.k, x.v, key_mask=x.key_mask)
    assert found.equal(expected)
