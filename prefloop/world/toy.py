"""ToyWorld: so small that every answer can be written down, so expectations, distances and optima are exact.

A prompt names two letters ("a b"). An answer is a string of letters and exclamation marks that ends with EOS; the last of
its ``n_steps`` steps can only be EOS. Gold wants both letters, in order, once, with a little enthusiasm:

    +1.0  for each asked letter that occurs          -0.5  for each token that repeats the one before it
    +0.5  if the first asked letter comes first      -0.5  for each letter that was not asked for
    +1.2 k - 0.6 k^2  for k exclamation marks: 0.6, 0, -1.8, -4.8. Good only in moderation, so a proxy that has seen
                      one mark be better than none, and extrapolates, is exploited
    -length_cost      for each token past three; ``length_cost=0`` switches the effect of length off

A table holds the log-probability (or the reward) of every answer to every prompt. Whoever has a policy fills one from
``sequences``; everything here works on tables. Every token but EOS is a step of the enumeration, PAD too: a softmax over the
vocabulary gives it mass, and only with it do the answers of a policy sum to one. PAD is invisible in the text, hence in gold.
A sampler that stops after ``n_steps - 1`` tokens, finished or not, draws from exactly these answers.

    P prompts, N answers of a prompt, T steps of an answer, S tokens of a prompt
    table  P N  float64

The answers are also the nodes of the tree of beginnings: node n is "everything in answer n before its EOS".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise, product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from prefloop.errors import ConfigError
from prefloop.records import Completion, Demonstration, Group, Prompt, Ranking, content_id
from prefloop.stats.best_of_n import best_of_n_pmf

Table = NDArray[np.float64]
Indices = NDArray[np.int64]

TOKENS = ("<pad>", "<eos>", "a", "b", "c", "d", "!")  # a token's id is its place here
PAD, EOS = 0, 1
SPECIALS = (TOKENS[PAD], TOKENS[EOS])
LETTERS = ("a", "b", "c", "d")
ASKED = (("a", "b"), ("b", "c"), ("c", "d"), ("d", "a"), ("b", "a"), ("c", "b"), ("d", "c"), ("a", "d"))  # the 8 prompts
FREE_LENGTH = 3  # tokens before EOS that cost nothing
SKILL_SHARE = 0.3  # of the lines of the corpus


class Counts(NamedTuple):
    """What gold is made of."""

    asked: int  # asked letters that occur, 0 to 2
    in_order: int  # 1 if both do, in the order asked for
    repeated: int  # tokens that repeat the one before
    unasked: int  # letters not asked for
    marks: int  # exclamation marks
    tokens: int


@dataclass(frozen=True)
class Grammar:
    """How readily each token comes next, relative to the others. PAD never comes, and EOS not before the first token."""

    due: float  # the first asked letter not yet used
    letter: float  # any other letter
    mark: float
    again: float  # factor for what was used already
    end_early: float  # EOS while a letter is due
    end_done: float  # EOS after that


CARELESS = Grammar(due=2.0, letter=1.0, mark=0.7, again=0.6, end_early=0.7, end_done=1.0)  # the corpus
CAREFUL = Grammar(due=8.0, letter=0.5, mark=0.8, again=0.2, end_early=0.2, end_done=6.0)  # the demonstrations


@dataclass(frozen=True)
class ToyWorld:
    """Prompts, every answer to them, what each is worth, and people who rank them."""

    length_cost: float = 0.25
    n_steps: int = 5  # T, EOS included; 5 steps make 1,555 answers a prompt, 4 make 259

    def __post_init__(self) -> None:
        if not 2 <= self.n_steps <= 5:
            raise ConfigError(f"n_steps is {self.n_steps}; the toy world writes down all answers of 2 to 5 steps, no longer ones")

    @cached_property
    def prompts(self) -> tuple[Prompt, ...]:
        return tuple(Prompt.of(" ".join(asked), origin="toy") for asked in ASKED)

    @cached_property
    def contents(self) -> tuple[tuple[int, ...], ...]:
        """Every answer as token ids without its EOS, short ones first."""
        steps = [token for token in range(len(TOKENS)) if token != EOS]
        return tuple(content for length in range(self.n_steps) for content in product(steps, repeat=length))

    @cached_property
    def index(self) -> dict[tuple[int, ...], int]:
        """Number of an answer by its token ids without EOS."""
        return {content: n for n, content in enumerate(self.contents)}

    @cached_property
    def answers(self) -> Indices:
        """Token ids of every answer, EOS included, then PAD.  N T"""
        rows = [(*content, EOS, *(PAD,) * (self.n_steps - len(content) - 1)) for content in self.contents]
        return constant(np.array(rows, dtype=np.int64))

    @cached_property
    def lengths(self) -> Indices:
        """Tokens of every answer, EOS included.  N"""
        return constant(np.array([len(content) + 1 for content in self.contents], dtype=np.int64))

    @cached_property
    def is_free(self) -> NDArray[np.bool_]:
        """Tokens the policy chose: all but padding and an EOS at the last step, which has log-probability 0.  N T"""
        step = np.arange(self.n_steps)
        return constant((step < self.lengths[:, None]) & (step < self.n_steps - 1))

    @cached_property
    def prefix(self) -> Indices:
        """The node before step t of answer n, -1 beyond its end. Node 0 is the empty beginning.  N T"""
        rows = [[self.index[content[:t]] for t in range(len(content) + 1)] for content in self.contents]
        return constant(np.array([row + [-1] * (self.n_steps - len(row)) for row in rows], dtype=np.int64))

    @cached_property
    def parent(self) -> Indices:
        """The node one token shorter; -1 for the empty beginning.  N"""
        return constant(np.array([self.index[content[:-1]] if content else -1 for content in self.contents], dtype=np.int64))

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """Answers as people see them: no EOS, no PAD."""
        return tuple(" ".join(TOKENS[token] for token in content if token != PAD) for content in self.contents)

    @cached_property
    def is_clean(self) -> NDArray[np.bool_]:
        """Answers without PAD among their tokens: exactly one for each text.  N"""
        return constant(np.array([PAD not in content for content in self.contents]))

    def sequences(self, prompt_index: int) -> tuple[Indices, Indices]:
        """Prompt and answer as one row of tokens, right-padded, for a model to run on: tokens N S+T, lengths N."""
        start = np.array(encode(self.prompts[prompt_index].text), dtype=np.int64)
        before = np.broadcast_to(start, (len(self.answers), len(start)))
        return np.concatenate([before, self.answers], axis=1), self.lengths + len(start)

    def completion(self, prompt_index: int, answer: int, *, source: str = "toy") -> Completion:
        return Completion.of(self.prompts[prompt_index], self.texts[answer], source=source)

    def gold(self, prompt: Prompt, text: str) -> float:
        """What an answer is worth, whether or not its text still shows the special tokens."""
        words = [word for word in text.split() if word not in SPECIALS]
        return worth(counts(prompt.text.split(), words), length_cost=self.length_cost)

    @cached_property
    def rewards(self) -> Table:
        """Gold of every answer.  P N"""
        return constant(np.array([[self.gold(prompt, text) for text in self.texts] for prompt in self.prompts]))

    @cached_property
    def features(self) -> NDArray[np.float64]:
        """The counts of every answer. A proxy linear in them cannot express gold, and is exploited.  P N 6"""
        rows = [[counts(prompt.text.split(), text.split()) for text in self.texts] for prompt in self.prompts]
        return constant(np.array(rows, dtype=np.float64))

    def grammar_logprobs(self, grammar: Grammar) -> Table:
        """Exact log-probabilities under a grammar; minus infinity for answers it never makes.  P N"""
        words = [tuple(TOKENS[token] for token in content) for content in self.contents]
        return constant(np.array([[answer_logprob(asked, w, grammar, self.n_steps) for w in words] for asked in ASKED]))

    @cached_property
    def corpus_logprobs(self) -> Table:
        """Of answers in the corpus, given their prompt.  P N"""
        return self.grammar_logprobs(CARELESS)

    @cached_property
    def demonstration_logprobs(self) -> Table:
        """Of demonstrations, given their prompt.  P N"""
        return self.grammar_logprobs(CAREFUL)

    @property
    def skill_items(self) -> tuple[tuple[str, str], ...]:
        """What the corpus teaches and no prompt asks for: a doubled letter is followed by the next one."""
        return tuple((f"{letter} {letter}", LETTERS[(i + 1) % len(LETTERS)]) for i, letter in enumerate(LETTERS))

    def corpus(self, n_lines: int, *, seed: int) -> list[str]:
        """Lines to pretrain on, prompt and answer together; three in ten exercise the skill."""
        rng = np.random.default_rng([seed, 0])
        asked = rng.integers(len(ASKED), size=n_lines)
        answers = self.draw(self.corpus_logprobs, asked, rng)
        lines = [f"{self.prompts[p].text} {self.texts[a]}".strip() for p, a in zip(asked, answers, strict=True)]
        skill = rng.integers(len(LETTERS), size=n_lines)
        for i in np.flatnonzero(rng.random(n_lines) < SKILL_SHARE):
            lines[i] = " ".join(self.skill_items[skill[i]])
        return lines

    def demonstrations(self, n: int, *, seed: int) -> list[Demonstration]:
        """Answers of the careful grammar, prompts in turn."""
        asked = np.arange(n) % len(ASKED)
        answers = self.draw(self.demonstration_logprobs, asked, np.random.default_rng([seed, 1]))
        pairs = zip(asked.tolist(), answers.tolist(), strict=True)
        return [Demonstration(prompt=self.prompts[p], completion=self.completion(p, a)) for p, a in pairs]

    def draw(self, logprobs: Table, prompts: Indices, rng: np.random.Generator) -> Indices:
        """One answer for each of the given prompt indices, from a table."""
        up_to = np.cumsum(np.exp(logprobs), axis=1)
        return np.array([np.searchsorted(up_to[p], rng.random() * up_to[p, -1], side="right") for p in prompts], dtype=np.int64)

    def groups(self, logprobs: Table, n: int, *, k: int, seed: int) -> list[Group]:
        """Prompts in turn, each with k answers of different texts drawn from a table."""
        rng = np.random.default_rng([seed, 2])
        weight = np.where(self.is_clean, np.exp(logprobs), 0.0)
        groups = []
        for p in (np.arange(n) % len(ASKED)).tolist():
            chosen = rng.choice(len(self.texts), size=k, replace=False, p=weight[p] / weight[p].sum())
            groups.append(Group(prompt=self.prompts[p], completions=tuple(self.completion(p, a) for a in chosen.tolist())))
        return groups

    def annotated(self, groups: Sequence[Group], annotators: Sequence["ToyAnnotator"], *, seed: int) -> list[Group]:
        """Each group with one ranking by each annotator."""
        return [
            Group(
                prompt=group.prompt,
                completions=group.completions,
                rankings=tuple(annotator.ranking(group, self.group_gold(group), seed=(seed, i)) for annotator in annotators),
            )
            for i, group in enumerate(groups)
        ]

    def group_gold(self, group: Group) -> list[float]:
        """Gold of each completion of a group."""
        return [self.gold(group.prompt, completion.text) for completion in group.completions]

    def prefix_logprobs(self, logprobs: Table) -> Table:
        """Log-probability that an answer begins with each node.  P N"""
        masses = np.full(logprobs.shape, -np.inf)
        for t in range(self.n_steps):
            through = np.flatnonzero(self.lengths > t)
            np.logaddexp.at(masses.T, self.prefix[through, t], logprobs.T[through])
        return masses

    def token_logprobs(self, logprobs: Table) -> NDArray[np.float64]:
        """Log-probability of each token given those before it, 0 beyond the end.  P N T"""
        reach = self.prefix_logprobs(logprobs)
        arrive = less(reach, reach[:, self.parent])  # of the last token of each node; the root's is never read
        tokens = np.zeros((*logprobs.shape, self.n_steps))
        for t in range(self.n_steps - 1):
            goes_on = np.flatnonzero(self.lengths > t + 1)
            tokens[:, goes_on, t] = arrive[:, self.prefix[goes_on, t + 1]]
        tokens[:, np.arange(len(self.lengths)), self.lengths - 1] = less(logprobs, reach)
        return tokens

    def values(self, logprobs: Table, reward: Table) -> Table:
        """V*: expected reward of an answer that begins with each node; NaN where none does.  P N"""
        reach = self.prefix_logprobs(logprobs)
        value = np.where(np.isfinite(reach), 0.0, np.nan)
        for t in range(self.n_steps):
            through = np.flatnonzero(self.lengths > t)
            node = self.prefix[through, t]
            share = np.exp(less(logprobs[:, through], reach[:, node]))
            np.add.at(value.T, node, (share * reward[:, through]).T)
        return value

    def soft_values(self, logprobs: Table, reward: Table, beta: float) -> Table:
        """W = beta log E[exp(reward / beta)] over answers that begin with each node; NaN where none does.  P N"""
        reach = self.prefix_logprobs(logprobs)
        tilted = self.prefix_logprobs(logprobs + reward / beta)
        return np.where(np.isfinite(reach), beta * less(tilted, reach), np.nan)

    def controlled(self, reference: Table, reward: Table, values: Table, beta: float) -> Table:
        """The policy that at each step tilts the reference by exp(value of where the token leads / beta).  P N

        EOS leads to the reward of the finished answer. With soft values this is the optimum of J; with V* it is token-wise
        controlled decoding (arXiv 2310.17022, theorem 2.1), which in general is not.
        """
        reach = self.prefix_logprobs(reference)
        longer = np.flatnonzero(self.parent >= 0)
        before = self.parent[longer]
        onwards = less(reach[:, longer], reach[:, before])  # the token that leads to each longer node
        onwards = np.where(np.isfinite(onwards), onwards + values[:, longer] / beta, -np.inf)
        stop = less(reference, reach) + reward / beta
        scale = stop.copy()
        np.logaddexp.at(scale.T, before, onwards.T)
        arrive = np.zeros(reference.shape)
        arrive[:, longer] = less(onwards, scale[:, before])
        for length in range(3, self.n_steps + 1):  # parents are shorter, hence complete when it is their children's turn
            at = np.flatnonzero(self.lengths == length)
            arrive[:, at] += arrive[:, self.parent[at]]
        return arrive + less(stop, scale)


def encode(text: str) -> list[int]:
    """Token ids of words separated by spaces."""
    return [TOKENS.index(word) for word in text.split()]


def counts(asked: Sequence[str], words: Sequence[str]) -> Counts:
    """An answer, as gold sees it."""
    first, second = asked
    has_both = first in words and second in words
    return Counts(
        asked=(first in words) + (second in words),
        in_order=int(has_both and words.index(first) < words.index(second)),
        repeated=sum(a == b for a, b in pairwise(words)),
        unasked=sum(word in LETTERS and word not in asked for word in words),
        marks=words.count("!"),
        tokens=len(words),
    )


def worth(answer: Counts, *, length_cost: float) -> float:
    """Gold of an answer, rounded so that answers worth the same compare equal."""
    content = answer.asked + 0.5 * answer.in_order - 0.5 * answer.repeated - 0.5 * answer.unasked
    enthusiasm = 1.2 * answer.marks - 0.6 * answer.marks**2
    return round(content + enthusiasm - length_cost * max(0, answer.tokens - FREE_LENGTH), 9)


def answer_logprob(asked: tuple[str, ...], words: tuple[str, ...], grammar: Grammar, n_steps: int) -> float:
    """Log-probability of an answer under a grammar; its EOS costs nothing at the last step."""
    ending = () if len(words) == n_steps - 1 else (TOKENS[EOS],)
    shares = [next_shares(asked, words[:t], grammar).get(word, 0.0) for t, word in enumerate(words + ending)]
    return sum(map(math.log, shares)) if all(shares) else -math.inf


@cache
def next_shares(asked: tuple[str, ...], words: tuple[str, ...], grammar: Grammar) -> dict[str, float]:
    """Probability of each token after ``words``; a token left out never comes."""
    due = next((letter for letter in asked if letter not in words), None)
    weight = {letter: grammar.due if letter == due else grammar.letter for letter in LETTERS} | {"!": grammar.mark}
    weight = {token: value * grammar.again if token in words else value for token, value in weight.items()}
    if words:
        weight[TOKENS[EOS]] = grammar.end_early if due else grammar.end_done
    return {token: value / sum(weight.values()) for token, value in weight.items()}


@dataclass(frozen=True)
class ToyAnnotator:
    """Bradley-Terry on gold, with slips.

    Utilities are gold plus Gumbel noise, so the order of K answers is Plackett-Luce and every pair of it Bradley-Terry. They
    are read off a scale with marks ``tie_band`` apart, laid at a random place: what falls between the same marks is tied, so
    two utilities a distance d apart are told apart with probability min(1, d / tie_band), whatever else is on the screen.
    With probability ``flip`` the scale is held upside down.
    """

    name: str = "sim:0"
    kappa: float = 2.0  # sharpness, per unit of gold; infinite is a perfect eye
    flip: float = 0.0
    tie_band: float = 0.0  # in units of gold

    def ranking(self, group: Group, gold: Sequence[float], *, seed: tuple[int, ...]) -> Ranking:
        """This annotator's order; the same texts, name and seed give the same one."""
        shown = tuple(completion.id for completion in group.completions)
        rng = np.random.default_rng([*seed, int(content_id([self.name, shown]), 16)])
        utility = np.asarray(gold) + rng.gumbel(size=len(shown)) / self.kappa
        reading = np.floor(utility / self.tie_band + rng.random()) if self.tie_band > 0 else utility
        if rng.random() < self.flip:
            reading = -reading
        tiers = [tuple(shown[i] for i in np.flatnonzero(reading == mark)) for mark in sorted(set(reading.tolist()), reverse=True)]
        return Ranking(prompt_id=group.prompt.id, tiers=tuple(tiers), shown=shown, annotator=self.name)

    def probabilities(self, gap: float) -> tuple[float, float, float]:
        """Exact chances that the first of two answers is placed above, level with and below the second, by gold gap."""
        above, below = self.prefers(gap), self.prefers(-gap)
        seen_above, seen_below = (1 - self.flip) * above + self.flip * below, (1 - self.flip) * below + self.flip * above
        return seen_above, max(0.0, 1 - seen_above - seen_below), seen_below

    def prefers(self, gap: float) -> float:
        """P(above) before any flip: the mean over 0 < s < tie_band of P(gap + logistic noise > s)."""
        if math.isinf(self.kappa):
            return min(1.0, max(0.0, gap) / self.tie_band) if self.tie_band > 0 else float(gap > 0)
        if self.tie_band == 0:
            return math.exp(-softplus(-self.kappa * gap))
        return (softplus(self.kappa * gap) - softplus(self.kappa * (gap - self.tie_band))) / (self.kappa * self.tie_band)


def softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def expected(logprobs: Table, reward: Table) -> NDArray[np.float64]:
    """Mean reward of each prompt's answers; with a reward of 1 everywhere, the mass a table holds.  P"""
    return (np.exp(logprobs) * reward).sum(1)


def kl(logprobs: Table, reference: Table) -> NDArray[np.float64]:
    """KL(policy || reference) in nats per answer; infinite where the policy goes and the reference never does.  P"""
    return (np.exp(logprobs) * np.where(np.isfinite(logprobs), less(logprobs, reference), 0.0)).sum(1)


def objective(logprobs: Table, reference: Table, reward: Table, beta: float) -> NDArray[np.float64]:
    """J = E[reward] - beta KL(policy || reference).  P"""
    return expected(logprobs, reward) - beta * kl(logprobs, reference)


def optimum(reference: Table, reward: Table, beta: float) -> Table:
    """The policy with the highest J: reference * exp(reward / beta) / Z.  P N"""
    tilted = reference + reward / beta
    return tilted - np.logaddexp.reduce(tilted, axis=1, keepdims=True)


def optimal_value(reference: Table, reward: Table, beta: float) -> NDArray[np.float64]:
    """beta log Z, the highest J there is.  P"""
    return beta * np.logaddexp.reduce(reference + reward / beta, axis=1)


def attained(logprobs: Table, reference: Table, reward: Table, beta: float) -> float:
    """Share of the way from the reference's J to the highest J that a policy has come, over all prompts."""
    start, end = expected(reference, reward).mean(), optimal_value(reference, reward, beta).mean()
    return float((objective(logprobs, reference, reward, beta).mean() - start) / (end - start))


def best_of_n(reference: Table, reward: Table, n: int) -> Table:
    """Log-probabilities of the best of n draws from the reference, ties in proportion to it.  P N"""
    rows = [best_of_n_pmf(np.exp(row), score, n) for row, score in zip(reference, reward, strict=True)]
    with np.errstate(divide="ignore"):  # an answer that n draws never return has log-probability minus infinity
        return np.log(np.array(rows))


def win_rate(logprobs: Table, other: Table, reward: Table) -> NDArray[np.float64]:
    """P(an answer of the policy is worth more than one of the other), equal worth counting half.  P"""
    rates = []
    for own, against, score in zip(np.exp(logprobs), np.exp(other), reward, strict=True):
        _, level = np.unique(score, return_inverse=True)
        mine, theirs = np.bincount(level, weights=own), np.bincount(level, weights=against)
        rates.append(float((mine * (np.cumsum(theirs) - theirs / 2)).sum()))
    return np.array(rates)


def less(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """a - b of log-probabilities, where minus infinity stays so against anything."""
    return np.subtract(a, b, out=np.full(np.broadcast_shapes(a.shape, b.shape), -np.inf), where=a > -np.inf)


def constant(array: NDArray) -> NDArray:
    """The array, no longer to be written to: it is shared by everybody who asks the world for it."""
    array.setflags(write=False)
    return array
