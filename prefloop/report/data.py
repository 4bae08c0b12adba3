"""What the page of a study is made from: figures with their intervals and sample sizes, nothing computed yet.

Every part may be missing; the page then says "not measured" in its place. Whoever ran the study fills this in
(``ReportData.model_validate(...)`` takes plain dicts), so the page never reads a model, a run folder or a clock.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from prefloop.evaluate.over_seeds import wins_of
from prefloop.records import Record

DEMO_ROWS = ("base", "sft", "best_of_n", "ppo", "ppo_ptx", "ppo_overoptimised")
ROWS = (*DEMO_ROWS, "rlp_uml", "rlp_spg", "rrhf", "dpo", "rloo")  # stable names, in the order of the page


class Figure(Record):
    """A measured quantity: its mean, a 95% interval where there is one, and how many it is a mean of.

    A bare number is accepted as a mean without an interval, and so is any object with these attributes, such as the
    intervals of ``prefloop.stats``. An interval that is unbounded on both sides, because one value says nothing about
    spread, may be given as infinities or left out.
    """

    mean: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    n_prompts: int | None = None
    n_seeds: int | None = None

    @model_validator(mode="before")
    @classmethod
    def a_bare_number_is_a_mean(cls, given: Any) -> Any:
        if isinstance(given, (int, float)) and not isinstance(given, bool):
            return {"mean": given}
        if not isinstance(given, (dict, Figure)) and hasattr(given, "mean") and hasattr(given, "low"):
            return {name: getattr(given, name) for name in cls.model_fields if hasattr(given, name)}
        return given

    @model_validator(mode="after")
    def an_interval_has_two_ends_in_order(self) -> "Figure":
        if (self.low is None) != (self.high is None):
            raise ValueError(f"an interval has two ends, got low = {self.low} and high = {self.high}; give both or neither")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"an interval runs from low to high, got low = {self.low} above high = {self.high}")
        return self

    @property
    def has_interval(self) -> bool:
        """Whether both ends are there and finite, which is what a claim needs."""
        return self.low is not None and self.high is not None and math.isfinite(self.low) and math.isfinite(self.high)


def nothing_if_unmeasured(given: Any) -> Any:
    """A mean of no values (None or NaN, as ``prefloop.stats`` gives it) is not a figure."""
    mean = given.get("mean") if isinstance(given, dict) else getattr(given, "mean", given)
    return None if mean is None or (isinstance(mean, float) and math.isnan(mean)) else given


Measured = Annotated[Figure | None, BeforeValidator(nothing_if_unmeasured)]


class Stage(Record):
    """One step of the study and the time it took."""

    name: str
    seconds: float | None = None
    skipped: bool = False  # its inputs were unchanged, so an earlier result was taken


class Row(Record):
    """One policy on the held-out prompts."""

    name: str
    gold: Measured = None  # the written rules' reward, never seen by training
    win: Measured = None  # share of prompts on which gold prefers it to the baseline, ties half
    kl: Measured = None  # nats per answer to the baseline
    length: Measured = None  # tokens
    skill: dict[str, Measured] = Field(default_factory=dict)  # accuracies on items that no training prompt exercises
    fluency: dict[str, Measured] = Field(default_factory=dict)  # how answers read: nll under the baseline, distinct words
    proxy: Measured = None  # the learned reward that training maximised


class Paired(Record):
    """The difference a - b of one metric on the same prompts (and seeds), with its 95% interval."""

    a: str
    b: str
    metric: str  # gold, proxy, skill/<name>, fluency/<name>; accuracy and loss of reward models
    mean: float
    low: float = -math.inf
    high: float = math.inf
    n_prompts: int
    n_seeds: int = 1

    @model_validator(mode="before")
    @classmethod
    def no_bound_is_no_claim(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {key: value for key, value in given.items() if not (key in ("low", "high") and value is None)}


class FreshPaired(Paired):
    """The difference of two reward models on fresh answers of one policy."""

    policy: str

    @property
    def figure(self) -> Figure:
        return Figure(mean=self.mean, low=self.low, high=self.high)


class CalibrationBin(Record):
    """Pairs whose predicted probability falls in one bin, and how often the prediction came true."""

    predicted: float
    observed: float
    n: int


class GapBin(Record):
    """Pairs whose gap falls in one bin, and how often the reward model orders them right."""

    gap: float
    accuracy: Figure
    n: int


class RewardModel(Record):
    """What there is to know about how far the learned reward can be trusted."""

    pair_accuracy: Measured = None  # held-out pairs, against the (noisy) labels
    bayes_ceiling: Measured = None  # what the true reward itself would reach on those labels
    gold_accuracy: Measured = None  # held-out pairs, against the true order
    calibration: tuple[CalibrationBin, ...] = ()
    accuracy_by_gap: tuple[GapBin, ...] = ()
    gap_of: Literal["score", "gold"] = "score"  # what accuracy_by_gap is binned by: the model's own scores, or the true reward
    length_correlation: Measured = None


class RewardRow(Record):
    """One reward model on held-out rankings, beside two guessers that look at nothing but length."""

    name: str
    accuracy: Measured = None  # mean over prompts of the share of ordered pairs in the right order
    loss: Measured = None  # nats a pair; log 2 is what a coin pays
    prefers_longer: Measured = None
    prefers_shorter: Measured = None
    trust: RewardModel | None = None


class FreshRow(Record):
    """One reward model on fresh answers of one policy, against gold."""

    policy: str
    reward: str
    accuracy: Measured = None  # mean over prompts of the share of pairs that it orders as gold does
    loss: Measured = None  # nats a pair; log 2 is what a coin pays
    overconfidence: Measured = None  # mean chance it gives its favourite, minus how often the favourite is better
    calibration: tuple[CalibrationBin, ...] = ()


class SyntheticPairs(Record):
    """Synthetic preferences of one relearn run within a range of confidence: how often gold agrees. Without a range: those learned."""

    name: str
    low: float | None = None
    high: float | None = None
    n: int
    accuracy: Measured = None  # share whose winner gold prefers, equal gold half
    gap: Measured = None  # gold of the winner minus gold of the loser


class CurvePoint(Record):
    """A policy at one moment of its training: means over the answers it drew then."""

    step: int
    episodes: int | None = None
    proxy: float | None = None
    gold: float | None = None
    gold_low: float | None = None
    gold_high: float | None = None
    kl: float | None = None
    length: float | None = None


class BestOf(Record):
    """The best of n answers by the proxy: its expected proxy and gold, at a bound on its KL."""

    n: int
    kl: float
    proxy: float | None = None
    gold: float | None = None
    low: float | None = None  # of gold
    high: float | None = None


class Answer(Record):
    """What one policy said, and what both rewards think of it."""

    policy: str
    text: str
    gold: float | None = None
    proxy: float | None = None


class Sample(Record):
    """One held-out prompt and the answers of several policies."""

    prompt: str
    answers: tuple[Answer, ...] = ()


class SFTEpoch(Record):
    """One saved epoch of supervised fine-tuning; the chosen one has the best reward, not the best loss."""

    epoch: int
    train_loss: float | None = None
    validation_loss: float | None = None
    reward: Measured = None
    chosen: bool = False


class DataReport(Record):
    """What was kept and dropped of one data set, in the doctor's own words."""

    name: str
    lines: tuple[str, ...]


class Lineage(Record):
    """One artefact, by content hash, and what it was made from."""

    name: str
    hash: str
    parents: tuple[str, ...] = ()


class Counts(Record):
    """How much went round the loop; shown in its picture."""

    training_prompts: int | None = None
    answers_per_prompt: int | None = None
    annotators: int | None = None
    rankings: int | None = None
    pairs: int | None = None
    episodes: int | None = None
    evaluation_prompts: int | None = None


class ReportData(Record):
    """Everything the page of a study shows."""

    title: str
    subtitle: str = ""  # what was asked
    seconds: float | None = None
    stages: tuple[Stage, ...] = ()
    machine: str = ""
    command: str = ""
    counts: Counts = Counts()
    baseline: str = "sft"  # the row that wins and distances are measured against
    chooser: str = "best_of_n"  # the row of best-of-n, if there is one
    rows: tuple[Row, ...] = ()
    paired: tuple[Paired, ...] = ()
    reward_model: RewardModel | None = None  # the one policies were judged beside, or the only one
    rewards: tuple[RewardRow, ...] = ()  # every reward model that was judged
    reward_pairs: tuple[Paired, ...] = ()  # between them, and to the rules of length
    fresh: tuple[FreshRow, ...] = ()  # reward models on fresh answers
    fresh_pairs: tuple[FreshPaired, ...] = ()
    synthetic: tuple[SyntheticPairs, ...] = ()
    curves: dict[str, tuple[CurvePoint, ...]] = Field(default_factory=dict)
    best_of_n: tuple[BestOf, ...] = ()
    samples: tuple[Sample, ...] = ()
    sft_selection: tuple[SFTEpoch, ...] = ()
    data_reports: tuple[DataReport, ...] = ()
    warnings: tuple[str, ...] = ()
    lineage: tuple[Lineage, ...] = Field(default=(), description="parents are names or hashes of other entries")

    @property
    def is_of_rewards(self) -> bool:
        """Whether the study is about reward models alone: no policy was compared, none was trained on its own answers."""
        return bool(self.rewards) and not self.rows and not self.curves

    def row(self, name: str) -> Row | None:
        """The row of one policy, if it was measured."""
        return next((row for row in self.rows if row.name == name), None)

    def against(self, name: str) -> str:
        """What a row is compared with: the baseline, at the row's own point of a sweep where the baseline has one too."""
        own = "@".join([self.baseline, *name.split("@")[1:]])
        return own if self.row(own) else self.baseline

    def judged(self) -> list[str]:
        """The policies that somebody trained to be better than the baseline, by rows and comparisons; in the order of the page.

        Not the baseline, not what came before it, not best of n, which trains nothing, and not the run meant to go wrong.
        """
        before = {"base", "sft"} if self.baseline != "base" else {"base"}
        left_out = {*before, self.baseline, self.chooser, "ppo_overoptimised"}
        named = [row.name for row in self.rows] + [pair.a for pair in self.paired if pair.b == self.against(pair.a)]
        return [name for name in dict.fromkeys(named) if name.partition("@")[0] not in left_out]

    def difference(self, a: str, b: str, metric: str) -> Paired | None:
        """a - b in one metric, whichever way round it was stored."""
        for pair in (*self.paired, *self.reward_pairs):
            if pair.metric == metric and (pair.a, pair.b) == (a, b):
                return pair
            if pair.metric == metric and (pair.a, pair.b) == (b, a):
                return pair.model_copy(update={"a": a, "b": b, "mean": -pair.mean, "low": -pair.high, "high": -pair.low})
        return None


def row_of(told: Mapping[str, Any]) -> dict[str, Any]:
    """A row of summary.json as a row of the page: numbers joined with their intervals, wins by one name."""
    joined = {name: told.get(f"{name}_interval") or told.get(name) for name in ("kl", "length", "proxy")}
    skill = {**(told.get("skill") or {}), **(told.get("skill_interval") or {})}
    found = {"name": told["name"], "gold": told.get("gold"), "win": wins_of(told), **joined, "skill": skill}
    return found | {"fluency": told.get("fluency") or {}}
