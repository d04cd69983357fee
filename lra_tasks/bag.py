"""The floor of a bag: what the tokens of a sequence, or of the two of a pair, tell without their order."""

import numpy as np
from numpy.typing import NDArray

from lra_tasks.interface import Examples, pair

BESIDE = 4  # pairs next to each other that may share a sequence
RIDGE = 1e-3  # of the square of each clue, which the spread brings to 1
TINY = 1e-9  # beside the spread of a token that stands nowhere


def bag_guess(examples: Examples, vocabulary: int) -> NDArray[np.integer]:
    """For each example the answer of naive Bayes (multinomial, add one), learned from the other half of all.

    In closed form, and nobody answers from himself. The halves are drawn, for the order of the examples may
    say something of their labels.
    """
    counts = np.stack(
        [np.bincount(examples.sequence(row), minlength=vocabulary) for row in range(len(examples))]
    )
    half = np.random.default_rng(0).permutation(len(examples)) % 2
    answers = np.empty_like(examples.labels)
    for one in (0, 1):
        seen, labels = counts[half != one], examples.labels[half != one]
        scores = [
            _score(counts[half == one], seen[labels == label]) for label in range(labels.max(initial=0) + 1)
        ]
        answers[half == one] = np.argmax(scores, axis=0)
    return answers


def bags_guess(examples: Examples, vocabulary: int) -> NDArray[np.integer]:
    """For each pair whether it is labelled 1, by how the shares of each token in both sequences go together.

    A token's clue is the product of what the square roots of its two shares are above their means; clues are
    weighed by least squares with a little ridge, learned from the other half of all pairs, in closed form.
    Neighbours, which may have a sequence in common, are in the same half.
    """
    one, other = (_roots(examples, side, vocabulary) for side in (0, 1))
    mean = (one.mean(axis=0) + other.mean(axis=0)) / 2
    clues = (one - mean) * (other - mean)
    clues = np.concatenate((np.ones((len(clues), 1)), clues / (clues.std(axis=0) + TINY)), axis=1)
    half = (
        np.random.default_rng(0).permutation(-(-len(examples) // BESIDE)).repeat(BESIDE)[: len(examples)] % 2
    )
    answers = np.empty_like(examples.labels)
    for mine in (0, 1):
        seen, labels = clues[half != mine], examples.labels[half != mine]
        ridge = RIDGE * (len(seen) + 1) * np.eye(clues.shape[1])
        weights = np.linalg.solve(seen.T @ seen + ridge, seen.T @ (2.0 * labels - 1.0))
        answers[half == mine] = clues[half == mine] @ weights > 0
    return answers


def _roots(examples: Examples, side: int, vocabulary: int) -> NDArray[np.float64]:
    """The square root of the share of each token in one sequence of every pair."""
    sequences = (pair(examples.sequence(row))[side] for row in range(len(examples)))
    return np.sqrt([np.bincount(tokens, minlength=vocabulary) / len(tokens) for tokens in sequences])


def _score(counts: NDArray[np.integer], seen: NDArray[np.integer]) -> NDArray[np.float64]:
    """How likely each row of `counts` is beside the rows that were seen of one class, up to a common term."""
    total = seen.sum(axis=0) + 1.0
    return counts @ np.log(total / total.sum()) + np.log(len(seen) + 1.0)
