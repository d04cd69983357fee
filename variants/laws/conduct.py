"""Laws on good conduct: randomness, state, inputs, layout, and doing what the capabilities declare."""

import pickle
import random
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from inspect import Parameter

import torch

from variants.catalogue import build
from variants.interface import Attention, Dims, Unsupported
from variants.laws.asking import call, gradients, identical, must_serve, same, slopes
from variants.laws.case import HEADS, LENGTH, MAX_LEN, Broken, Case, Inputs, Skipped
from variants.laws.lifted import lift
from variants.laws.settings import settings
from variants.messages import told
from variants.options import options


def defaults(case: Case) -> None:
    """With no options but those that have no default, it can be built."""
    known = options(case.cls)
    needed = {name: case.trial[name] for name in known if known[name].default is Parameter.empty}
    try:
        built = build(case.cls, Dims(HEADS, case.head_dim, MAX_LEN), causal=case.causal, options=needed)
    except Unsupported as error:
        raise Skipped(str(error)) from error
    except Exception as error:
        raise Broken(f"with its defaults it cannot be built: {told(error)}") from error
    # What serves nothing proves nothing.
    must_serve(lift(built), case.draw())


def same_seed(case: Case) -> None:
    """Two at one seed give the same bytes, and so does one asked twice."""
    one, two = case.build(seed=3), case.build(seed=3)
    x = case.draw(masked=True) if case.caps.key_mask != "no" else case.draw()
    with _repeatable(case):
        out = call(one, x)
        identical(call(two, x), out, "two built from one seed")
        identical(call(one, x), out, "one asked twice")


@contextmanager
def _repeatable(case: Case) -> Generator[None, None, None]:
    """Sums in one order, which a GPU keeps to only if told to."""
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.use_deterministic_algorithms(case.device != "cpu" or before[0], warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def global_random_state(case: Case) -> None:
    """Construction, forward and backward leave the random state of torch, numpy and Python alone."""
    with _stirred():
        before = _random_states()
        attention = case.build()
        _unchanged(before, "construction")
        x = case.draw().detached()
        out = call(attention, x)
        _unchanged(before, "forward")
        gradients(out, x)
        _unchanged(before, "backward")


@contextmanager
def _stirred() -> Generator[None, None, None]:
    """Global states that nobody else sets, for as long as we look: to seed twice alike would not show."""
    python, torchs = random.getstate(), torch.get_rng_state()
    numpys = sys.modules["numpy"].random.get_state() if "numpy" in sys.modules else None
    random.seed(8_675_309)
    torch.default_generator.manual_seed(8_675_309)
    if numpys is not None:
        sys.modules["numpy"].random.seed(8_675_309)
    try:
        yield
    finally:
        random.setstate(python)
        torch.set_rng_state(torchs)
        if numpys is not None:
            sys.modules["numpy"].random.set_state(numpys)


def _random_states() -> dict[str, bytes]:
    states = {"torch": torch.get_rng_state().numpy().tobytes(), "random": pickle.dumps(random.getstate())}
    if torch.cuda.is_initialized():
        states["torch on CUDA"] = torch.cuda.get_rng_state().numpy().tobytes()
    # A variant that never imports numpy cannot draw from it, so nobody need import it to look.
    if "numpy" in sys.modules:
        states["numpy"] = pickle.dumps(sys.modules["numpy"].random.get_state())
    return states


def _unchanged(before: dict[str, bytes], when: str) -> None:
    for name, state in _random_states().items():
        if state != before.get(name, state):
            raise Broken(f"{when} changes the global random state of {name}")


def global_settings(case: Case) -> None:
    """Construction, forward and backward leave alone what all variants of a process share."""
    before = settings()
    attention = case.build()
    _as_they_were(before, "construction")
    x = case.draw().detached()
    out = call(attention, x)
    _as_they_were(before, "forward")
    gradients(out, x)
    _as_they_were(before, "backward")


def _as_they_were(before: dict[str, object], when: str) -> None:
    for name, value in settings().items():
        if value != before[name]:
            raise Broken(f"{when} changes {name}")


def train_mode(case: Case) -> None:
    """In training mode it computes what it does in evaluation mode, gradients too, and so without any."""
    attention = case.build()
    for masked in case.masks():
        x = case.draw(masked=masked).detached()
        leaves = [x.q, x.k, x.v, *(p for p in attention.parameters() if p.requires_grad)]
        found = list[list[torch.Tensor]]()
        for mode in (False, True):
            out = call(attention.train(mode), x)
            found.append([out, *slopes(out, leaves)])
        for one, other in zip(*found, strict=True):
            same(other, one, "training mode against evaluation mode")
        attention.eval()
        with torch.no_grad():
            same(call(attention, x), found[0][0], "without gradients against with them, after training")


def state_dict(case: Case) -> None:
    """Its state, loaded into one of another seed, makes the two equal."""
    one, two = case.build(seed=3), case.build(seed=4)
    two.load_state_dict(one.state_dict(), strict=True)
    x = case.draw()
    with _repeatable(case):
        identical(call(two, x), call(one, x), "after loading the state dict")


def inputs_untouched(case: Case) -> None:
    """Forward and backward do not write into q, k, v or the mask."""
    attention = case.build()
    for masked in case.masks():
        x = case.draw(masked=masked).detached()
        before = [t.detach().clone() for t in (x.q, x.k, x.v)]
        mask = None if x.key_mask is None else x.key_mask.clone()
        # Leaves refuse to be written into; what a layer passes on does not.
        y = Inputs(x.q * 1.0, x.k * 1.0, x.v * 1.0, x.key_mask)
        out = call(attention, y)
        gradients(out, x)
        for name, now, then in zip("qkv", (y.q, y.k, y.v), before, strict=True):
            identical(now.detach(), then, f"{name} after the call")
        if mask is not None and x.key_mask is not None:
            identical(x.key_mask, mask, "the key mask after the call")


def layout(case: Case) -> None:
    """Inputs that are transposed views give the same as contiguous ones."""
    attention = case.build()
    for masked in case.masks():
        x = case.draw(masked=masked)
        q, k, v = (t.transpose(1, 2).contiguous().transpose(1, 2) for t in (x.q, x.k, x.v))
        same(call(attention, Inputs(q, k, v, x.key_mask)), call(attention, x), "transposed views")


def honesty(case: Case) -> None:
    """What is declared missing is refused with a reason; what is declared is there."""
    caps, attention = case.caps, case.build()
    for name in ("causal", "cross", "key_mask"):
        if getattr(caps, name) != getattr(case.cls.caps, name) and not case.compiled:
            raise Broken(f"built, it says {name} = {getattr(caps, name)!r}, which its class does not")
    x = case.draw()
    must_serve(attention, x)
    if not caps.causal:
        _refuses("causal=True", replace(case, causal=True).build)
    short = Inputs(x.q[:, :, :33], x.k, x.v)
    if not caps.cross or case.causal:
        _refuses_call(attention, short, "fewer queries than keys")
    if caps.key_mask == "no":
        mask = torch.ones(x.k.shape[0], LENGTH, dtype=torch.bool, device=case.device)
        _refuses_call(attention, Inputs(x.q, x.k, x.v, mask), "a key mask")
    if caps.needs_max_len:
        _refuses_call(attention, case.draw(MAX_LEN + 1), "more than max_len positions")
    wide = torch.cat((x.q, x.q), 1), torch.cat((x.k, x.k), 1), torch.cat((x.v, x.v), 1)
    _refuses_call(attention, Inputs(*wide), "other heads than it was built for")
    if caps.learned != (sum(p.numel() for p in attention.parameters()) > 0):
        raise Broken(f"learned is declared as {caps.learned}, which its parameters deny")
    if not caps.exact_when:
        try:
            case.cls.exact_limit(Dims(HEADS, case.head_dim, 5), causal=case.causal)
        except NotImplementedError:
            return
        raise Broken("it has an exact limit, but exact_when does not say where")


def _refuses_call(attention: Attention, x: Inputs, what: str) -> None:
    if not attention.why_not(x.request()):
        raise Broken(f"why_not has nothing against {what}")
    _refuses(what, lambda: attention(x.q, x.k, x.v, key_mask=x.key_mask))


def _refuses(what: str, act: Callable[[], object]) -> None:
    try:
        act()
    except Unsupported as error:
        if not error.reasons or not all(error.reasons):
            raise Broken(f"{what} is refused without a reason") from error
        return
    except Exception as error:
        raise Broken(f"{what} raises {type(error).__name__}, not Unsupported: {error}") from error
    raise Broken(f"{what} is not refused")
