"""What a plan must know of variants from outside, asked of a child: the command itself runs no foreign code.

A file may loop, crash or end its process while it is imported; that costs a child, and the command says why.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import BaseModel, ConfigDict

from bench import planning
from bench.engines.limits import Limits
from bench.engines.local import LocalEngine
from bench.matrix import Matrix
from bench.planning import specs, unsupported, variant_card
from bench.resolver import BUILT_IN, Outside, Resolver
from bench.runner import free_share, preload
from results.run import Plan, VariantCard
from results.spec import Spec

# Importing files and binding options takes moments; what takes longer is taken to hang.
PATIENCE_S = 60.0


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Known(_Message):
    """What a class says of itself."""

    card: VariantCard
    backends: tuple[str, ...]


class Planned(_Message):
    """A plan, and why cells of it cannot be measured, by their ids."""

    plan: Plan
    unsupported: dict[str, list[str]]


class _PlanQuestion(_Message):
    matrix: Matrix
    outside: tuple[str, ...]


class _KnownQuestion(_Message):
    variants: tuple[Spec, ...]
    outside: tuple[str, ...]


class _Answer(_Message):
    planned: Planned | None = None
    known: list[Known] | None = None
    refusal: str | None = None


def plan(matrix: Matrix, resolver: Resolver) -> Planned:
    """See planning.plan.

    Raises:
        ValueError: what planning.plan raises, or importing a file ended its process or did not end.
    """
    named = list({str(spec): spec for cell in matrix.cells() for spec in specs(cell)}.values())
    if _ours(named, resolver):
        return _plan(matrix, resolver)
    question = _PlanQuestion(matrix=matrix, outside=resolver.references())
    protocols = {sweep.protocol for sweep in matrix.sweep}
    planned = _ask(_plan_job, question, named, resolver, preload(protocols)).planned
    assert planned is not None
    return planned


def known(variants: Sequence[Spec], resolver: Resolver) -> list[Known]:
    """What the classes of these variants say of themselves, in the same order.

    Raises:
        ValueError: there is no such variant, it does not take its options, or importing its file ended its
            process or did not end.
    """
    if _ours(variants, resolver):
        return _known(variants, resolver)
    question = _KnownQuestion(variants=tuple(variants), outside=resolver.references())
    found = _ask(_known_job, question, variants, resolver, preload(())).known
    assert found is not None
    return found


def _ours(variants: Sequence[Spec], resolver: Resolver) -> bool:
    return all(resolver.origin(spec) == BUILT_IN for spec in variants)


def _plan(matrix: Matrix, resolver: Resolver) -> Planned:
    made = planning.plan(matrix, resolver)
    return Planned(plan=made, unsupported={cell.id: unsupported(cell, resolver) for cell in made.cells})


def _known(variants: Sequence[Spec], resolver: Resolver) -> list[Known]:
    return [
        Known(card=variant_card(spec, resolver), backends=resolver.variant(spec).caps.backends)
        for spec in variants
    ]


def _plan_job(question: str) -> str:
    asked = _PlanQuestion.model_validate_json(question)
    return _answered(lambda: _Answer(planned=_plan(asked.matrix, _resolver(asked.outside))))


def _known_job(question: str) -> str:
    asked = _KnownQuestion.model_validate_json(question)
    return _answered(lambda: _Answer(known=_known(asked.variants, _resolver(asked.outside))))


def _resolver(outside: Sequence[str]) -> Resolver:
    return Resolver(Outside.parse(text) for text in outside)


def _answered(make: Callable[[], _Answer]) -> str:
    try:
        return make().model_dump_json()
    except ValueError as error:
        return _Answer(refusal=str(error)).model_dump_json()


def _ask(
    job: Callable[[str], str],
    question: BaseModel,
    variants: Sequence[Spec],
    resolver: Resolver,
    modules: Sequence[str],
) -> _Answer:
    limits = Limits(PATIENCE_S, free_share())
    engine = LocalEngine(modules)
    with TemporaryDirectory(dir=engine.scratch) as folder:
        log = Path(folder) / "log"
        ended = engine.run(job, question.model_dump_json(), limits, log)
        if ended.answer is None:
            names = {spec.name for spec in variants if resolver.origin(spec) != BUILT_IN}
            where = ", ".join(sorted(resolver.outside.get(name, name) for name in names))
            raise ValueError(f"importing {where} failed: {ended.how(limits, log)}")
    answer = _Answer.model_validate_json(ended.answer)
    if answer.refusal is not None:
        raise ValueError(answer.refusal)
    return answer
