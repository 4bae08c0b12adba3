"""The embedded world: everything about it behind one object."""

from collections.abc import Callable, Sequence

import numpy as np

from prefloop.errors import ConfigError, DataError
from prefloop.records import Completion, Demonstration, Group, Prompt
from prefloop.world import gold as rules
from prefloop.world.annotators import PERFECT, POOL, ROUNDING, pair_probabilities, pool, rank
from prefloop.world.corpus import draw_corpus, draw_demonstrations
from prefloop.world.draws import generator
from prefloop.world.languages import LANGUAGES
from prefloop.world.prompts import Split, draw_prompts, read_request
from prefloop.world.skills import SKILLS, SkillItem, draw_held_out

VERSIONS = (1,)


class World:
    """A small world in which the truth is known. It holds no state: every method is a function of its arguments.

    ``version`` freezes its difficulty; numbers from different versions cannot be compared.
    """

    SKILLS = SKILLS

    def __init__(self, version: int = 1, language: str = "en"):
        if version not in VERSIONS:
            raise ConfigError(f"the embedded world has no version {version!r}; there is {', '.join(map(str, VERSIONS))}")
        if language not in LANGUAGES:
            raise ConfigError(f"the embedded world does not speak {language!r}; it speaks {', '.join(LANGUAGES)}")
        self.version = version
        self.language = LANGUAGES[language]

    def prompts(self, n: int, *, split: Split, seed: int) -> list[Prompt]:
        """``n`` distinct prompts of a split: train, validation or held_out. The splits share no prompt, whatever the seeds."""
        return draw_prompts(self.language, n, split=split, seed=seed)

    def corpus(self, n_lines: int, *, seed: int) -> list[str]:
        """``n_lines`` documents of pretraining text; only training prompts, no held-out skill item."""
        return draw_corpus(self.language, n_lines, seed=seed)

    def demonstrations(self, n: int, *, seed: int, split: Split = "train") -> list[Demonstration]:
        """``n`` answers of mixed quality to distinct prompts: 55% without a flaw."""
        return draw_demonstrations(self.language, n, seed=seed, split=split)

    def gold(self, prompt: Prompt, text: str) -> float:
        """The true worth of an answer, whatever its text."""
        return rules.total(self.judge(prompt, text).terms)

    def gold_terms(self, prompt: Prompt, text: str) -> dict[str, float]:
        """The terms ``gold`` is the sum of."""
        return self.judge(prompt, text).terms

    def gold_scorer(self) -> Callable[[Sequence[Prompt], Sequence[Completion]], list[float]]:
        """``gold`` as a scorer of many completions, one prompt each."""

        def score(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[float]:
            return [self.gold(prompt, completion.text) for prompt, completion in zip(prompts, completions, strict=True)]

        return score

    def judge(self, prompt: Prompt, text: str) -> rules.Judged:
        """Gold terms and word count of an answer."""
        return rules.judge(self.language, read_request(self.language, prompt.text), text)

    def annotate(
        self,
        groups: Sequence[Group],
        *,
        annotators: int = POOL,
        flip: float = 0.25,
        seed: int,
        rankings_per_group: int = 1,
        noiseless: bool = False,
    ) -> list[Group]:
        """The groups with simulated rankings added, each by another annotator of the pool, chosen by the text.

        ``noiseless`` asks one annotator who sees exactly the gold reward; only ``flip`` then stands between labels and truth.
        """
        if not 0 <= flip <= 0.5:
            raise DataError(f"flip is the share of labels inverted, from 0 to 0.5; got {flip}")
        people = [PERFECT] if noiseless else list(pool(annotators))
        if not 0 <= rankings_per_group <= (rankings_per_group if noiseless else len(people)):
            raise DataError(f"{rankings_per_group} rankings of a group need as many annotators; there are {len(people)}")

        def annotated(group: Group) -> Group:
            judged = [self.judge(group.prompt, completion.text) for completion in group.completions]
            key = (self.version, seed)
            texts = sorted(completion.text for completion in group.completions)
            order = generator("who", *key, group.prompt.text, *texts).sample(people, len(people))
            rankings = [
                rank(group, judged, who=order[number % len(order)], flip=flip, key=(*key, number))
                for number in range(rankings_per_group)
            ]
            return Group(**{**dict(group), "rankings": (*group.rankings, *rankings)})

        return [annotated(group) for group in groups]

    def bayes_accuracy(
        self, groups: Sequence[Group], *, annotators: int = POOL, flip: float = 0.25, noiseless: bool = False
    ) -> float:
        """The best expected accuracy on the strict pairs of these rankings, for somebody who knows all gold terms.

        Of each pair the likelier order over the pool is predicted; its probability, given that the annotator told the two
        apart, is exact (``pair_probabilities``), and flips pull it towards one half. Averaged over the pairs of a ranking, then
        over rankings, as ``ranking_loss`` averages accuracy.
        """
        people = [PERFECT] if noiseless else list(pool(annotators))

        def accuracies(group: Group) -> np.ndarray:
            judged = [self.judge(group.prompt, completion.text) for completion in group.completions]
            above, below = pair_probabilities(people, judged, len(judged))
            right = np.maximum(above, below) / np.maximum(above + below, 1e-300)
            return right * (1 - flip) + (1 - right) * flip

        return mean_over_rankings(groups, accuracies)

    def oracle_accuracy(self, groups: Sequence[Group]) -> float:
        """How often the labels at hand agree with the order of gold; equal gold counts one half."""

        def agreement(group: Group) -> np.ndarray:
            worth = np.array([self.gold(group.prompt, completion.text) for completion in group.completions])
            return np.sign(np.round(worth[:, None] - worth[None, :], ROUNDING)) / 2 + 0.5

        return mean_over_rankings(groups, agreement)

    def skill_items(self, name: str, n: int, *, seed: int) -> list[SkillItem]:
        """Up to ``n`` different items of a skill, none of which is in any corpus."""
        return draw_held_out(name, n, seed=seed)


def mean_over_rankings(groups: Sequence[Group], value: Callable[[Group], np.ndarray]) -> float:
    """Mean of ``value(group)[better, worse]`` over the strict pairs of a ranking, then over rankings; nan without any pair."""
    means = []
    for group in groups:
        at = {completion.id: index for index, completion in enumerate(group.completions)}
        values = value(group) if group.rankings else np.empty(0)
        for ranking in group.rankings:
            if pairs := ranking.pairs():
                means.append(np.mean([values[at[better], at[worse]] for better, worse in pairs]))
    return float(np.mean(means)) if means else float("nan")
