"""The reward model: one forward per completion, all pairs of a prompt in one row, scores that are 0 for demonstrations."""

import json
import math
from itertools import combinations

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from prefloop.data.read import read_demonstrations, read_groups
from prefloop.data.write import split_by_prompt, write_groups
from prefloop.engine.randomness import derived_seed
from prefloop.errors import ConfigError, DataError
from prefloop.methods.reward import RewardConfig
from prefloop.models import shared_prefix
from prefloop.models.load import new_reward
from prefloop.models.scorer import load_scorer, reward_scorer
from prefloop.records import Completion, Group, Prompt, Ranking
from prefloop.stats.pair_accuracy import pair_accuracy
from tests.helpers import assert_close
from tests.methods.toy import history, run_reward, saved, toy, toy_encoder


def group(prompt: str, *tiers: str, unusable: str = "") -> Group:
    """A prompt with one ranking: tiers of answers (separated by commas) from best to worst, one letter a word."""
    asked = Prompt.of(prompt)
    named = {text: Completion.of(asked, " ".join(text)) for tier in (*tiers, unusable) for text in tier.split(",") if text}
    said = Ranking(
        prompt_id=asked.id,
        tiers=tuple(tuple(named[text].id for text in tier.split(",")) for tier in tiers),
        unusable=tuple(named[text].id for text in unusable.split(",") if text),
        shown=tuple(completion.id for completion in named.values()),
        annotator="ada",
    )
    return Group(prompt=asked, completions=tuple(named.values()), rankings=(said,))


UNEQUAL = (group("a b", "ab", "ba", "c"), group("c d", "cd", "dc"))  # three pairs and one


@pytest.fixture
def unequal(tmp_path):
    write_groups(tmp_path / "unequal.jsonl", UNEQUAL)
    return tmp_path / "unequal.jsonl"


def scores_at_the_start(one: Group) -> dict[str, float]:
    """By completion, under a new reward model, from transformers alone."""
    model, encoder = new_reward(toy() / "base", seed=derived_seed(0, "head", 0)), toy_encoder()
    score = {}
    for completion in one.completions:
        ids = encoder.prompt_ids(one.prompt) + encoder.completion_ids(completion.text)
        with torch.no_grad():
            score[completion.id] = float(model(torch.tensor([ids])).logits)
    return score


def losses_at_the_start(groups, *, noise: float = 0.0) -> list[list[float]]:
    """-log of the probability of every ordered pair under a new reward model: a list per group."""
    found = []
    for one in groups:
        score = scores_at_the_start(one)
        gaps = [score[a] - score[b] for a, b in one.rankings[0].pairs()]
        found.append([-math.log((1 - noise) / (1 + math.exp(-gap)) + noise / 2) for gap in gaps])
    return found


def first_loss(out, **settings) -> torch.Tensor:
    run_reward(out, demonstrations="", **settings)
    return torch.tensor(history(out)[0]["loss"])


def mean(values) -> float:
    return sum(values) / len(values)


def test_a_prompt_with_three_pairs_weighs_as_much_as_one_with_one(tmp_path, unequal):
    three, one = losses_at_the_start(UNEQUAL)
    assert (len(three), len(one)) == (3, 1)
    assert_close(first_loss(tmp_path / "run", data=unequal), mean([mean(three), mean(one)]))


def test_shuffled_every_pair_is_a_row_of_its_own(tmp_path, unequal):
    three, one = losses_at_the_start(UNEQUAL)
    assert_close(first_loss(tmp_path / "run", data=unequal, pairing="shuffled"), mean([*three, *one]))
    assert history(tmp_path / "run")[0].keys() == {"step", "epoch", "loss", "accuracy", "margin", "grad_norm", "lr"}


def test_the_label_noise_model_caps_what_a_wrong_order_can_cost(tmp_path, unequal):
    three, one = losses_at_the_start(UNEQUAL, noise=0.9)
    assert_close(first_loss(tmp_path / "run", data=unequal, noise=0.9), mean([mean(three), mean(one)]))
    assert abs(mean([mean(three), mean(one)]) - mean(list(map(mean, losses_at_the_start(UNEQUAL))))) > 1e-4  # 5 tolerances


@pytest.fixture
def computed(monkeypatch) -> list[int]:
    """How many completions each pass through the network computed, in rows of their own or behind a shared prompt."""
    seen = []

    def in_own_rows(model, tokens, length, plain=shared_prefix.sequence_rewards):
        seen.append(len(length))
        return plain(model, tokens, length)

    def behind_one_prompt(model, ranked, plain=shared_prefix.packed_scores_part):
        seen.append(int((ranked.completion_length > 0).sum()))
        return plain(model, ranked)

    monkeypatch.setattr(shared_prefix, "sequence_rewards", in_own_rows)
    monkeypatch.setattr(shared_prefix, "packed_scores_part", behind_one_prompt)
    return seen


@pytest.mark.parametrize("shares_prompts", [False, True])
@pytest.mark.parametrize(("pairing", "a_pass"), [("prompt", 4 + 2), ("shuffled", 2 * (5 + 1))])
def test_each_completion_is_computed_once_a_pass_not_once_a_pair(
    tmp_path, monkeypatch, computed, pairing, a_pass, shares_prompts
):
    """Four answers in three tiers make 5 pairs; two answers make one. Shuffled, each pair computes both its answers."""
    monkeypatch.setattr(shared_prefix, "shares_prompts", lambda model, ranked: shares_prompts)
    write_groups(tmp_path / "groups.jsonl", (group("a b", "ab", "ba,bb", "c"), group("c d", "cd", "dc")))
    summary = run_reward(tmp_path / "run", data=tmp_path / "groups.jsonl", demonstrations="", pairing=pairing, epochs=3)
    assert summary["pairs"] == 5 + 1
    assert sum(computed) == 3 * a_pass


@pytest.mark.parametrize("shares_prompts", [False, True])
def test_micro_batches_do_not_make_it_more(tmp_path, monkeypatch, computed, shares_prompts):
    monkeypatch.setattr(shared_prefix, "shares_prompts", lambda model, ranked: shares_prompts)
    write_groups(tmp_path / "groups.jsonl", (group("a b", "ab", "ba", "c", "d"), group("c d", "cd", "dc")))
    run_reward(tmp_path / "run", data=tmp_path / "groups.jsonl", demonstrations="", optim={"micro_batch": 1})
    assert sorted(computed) == [2, 4]


# ------------------------------------------------------------------------------------------------------ other readings of an order

WITH_A_TIE = group("a b", "ab,ba", "c")  # two ordered pairs of three


def nll(gap: float) -> float:
    return math.log(1 + math.exp(-gap))


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_a_tie_can_be_half_a_win_for_each_and_then_a_ranking_of_ties_teaches_too(tmp_path, noise):
    all_tied = group("c d", "cd,dc")
    write_groups(tmp_path / "data.jsonl", [WITH_A_TIE, all_tied])
    told = run_reward(tmp_path / "run", data=tmp_path / "data.jsonl", demonstrations="", ties="half", noise=noise)
    assert (told["rankings"], told["pairs"]) == (2, 2)

    def cost(gap: float) -> float:
        return -math.log((1 - noise) / (1 + math.exp(-gap)) + noise / 2)

    (ab, ba, c), (cd, dc) = (scores_at_the_start(one).values() for one in (WITH_A_TIE, all_tied))
    some = (cost(ab - c) + cost(ba - c) + (cost(ab - ba) + cost(ba - ab)) / 2) / 3
    assert_close(torch.tensor(history(tmp_path / "run")[0]["loss"]), (some + (cost(cd - dc) + cost(dc - cd)) / 2) / 2)


def test_the_divisor_of_the_paper_counts_ties(tmp_path, unequal):
    write_groups(tmp_path / "data.jsonl", [WITH_A_TIE, UNEQUAL[1]])
    found = {name: first_loss(tmp_path / name, data=tmp_path / "data.jsonl", divisor=name) for name in ("ordered", "all")}
    tied, one = losses_at_the_start([WITH_A_TIE, UNEQUAL[1]])
    assert_close(found["ordered"], mean([sum(tied) / 2, one[0]]))
    assert_close(found["all"], mean([sum(tied) / 3, one[0]]))
    first, other = (history(tmp_path / name)[0] for name in ("ordered", "all"))
    assert (first["accuracy"], first["margin"]) == (other["accuracy"], other["margin"])


def test_an_order_can_be_read_as_the_choice_of_its_best_or_as_one_choice_after_the_other(tmp_path, unequal):
    (ab, ba, c), (cd, dc) = (scores_at_the_start(one).values() for one in UNEQUAL)
    best_of_three = math.log(math.exp(ab) + math.exp(ba) + math.exp(c)) - ab
    best_of_k = first_loss(tmp_path / "best", data=unequal, loss="best_of_k")
    assert_close(best_of_k, mean([best_of_three, nll(cd - dc)]))
    in_turn = first_loss(tmp_path / "in turn", data=unequal, loss="plackett_luce")
    assert_close(in_turn, mean([mean([best_of_three, nll(ba - c)]), nll(cd - dc)]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "best_of_k", "noise": 0.1}, "ties, divisor and noise are about pairs; loss = best_of_k would ignore them"),
        ({"loss": "plackett_luce", "ties": "half"}, "loss = plackett_luce would ignore them"),
        ({"ties": "half", "divisor": "all"}, "ties = half counts every pair already"),
        ({"pairing": "shuffled", "divisor": "all"}, "pairing = shuffled makes a row of every ordered pair"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        RewardConfig.of(model="m", data="d", **settings)


# ------------------------------------------------------------------------------------------------------ demonstrations, members


def test_demonstrations_score_zero_on_average_and_transformers_reads_the_same_scores():
    shown = read_demonstrations(toy() / "demonstrations.jsonl").records[:60]
    everything = read_demonstrations(toy() / "demonstrations.jsonl").records
    folder = toy() / "reward" / "model"
    scorer = load_scorer(str(folder), template="plain")
    assert_close(torch.tensor(mean(scorer([d.prompt for d in everything], [d.completion for d in everything]))), 0.0)

    theirs, encoder = AutoModelForSequenceClassification.from_pretrained(folder), toy_encoder()
    ours = scorer([d.prompt for d in shown], [d.completion for d in shown])
    assert abs(theirs.config.prefloop_reward_shift) > 1e-3
    for value, demonstration in zip(ours, shown, strict=True):
        ids = encoder.prompt_ids(demonstration.prompt) + encoder.completion_ids(demonstration.completion.text)
        with torch.no_grad():
            logit = float(theirs(torch.tensor([ids])).logits)
        assert_close(torch.tensor(value), logit - theirs.config.prefloop_reward_shift)


def test_transformers_reads_them_from_padded_rows_too():
    shown = read_demonstrations(toy() / "demonstrations.jsonl").records[:8]
    folder = toy() / "reward" / "model"
    theirs, encoder = AutoModelForSequenceClassification.from_pretrained(folder), toy_encoder()
    tokens, _ = encoder.text_batch(encoder.conversations([d.prompt for d in shown], [d.completion.text for d in shown]))
    with torch.no_grad():
        logits = theirs(tokens, attention_mask=(tokens != encoder.pad).long()).logits[:, 0]
    ours = load_scorer(str(folder))([d.prompt for d in shown], [d.completion for d in shown])
    assert_close(torch.tensor(ours), logits - theirs.config.prefloop_reward_shift)


def test_without_demonstrations_scores_are_not_shifted(tmp_path, unequal):
    run_reward(tmp_path / "run", data=unequal, demonstrations="")
    config = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "model").config
    assert config.prefloop_reward_shift == 0.0


def test_members_differ_and_each_is_zero_on_demonstrations_so_their_mean_is(tmp_path):
    summary = run_reward(tmp_path, members=3, batch=64)
    assert summary["models"] == ["model-0", "model-1", "model-2"]
    for a, b in combinations(summary["models"], 2):
        assert saved(tmp_path, a) != saved(tmp_path, b)
    shown = read_demonstrations(toy() / "demonstrations.jsonl").records
    prompts, completions = [d.prompt for d in shown], [d.completion for d in shown]
    alone = [load_scorer(str(tmp_path / name))(prompts, completions) for name in summary["models"]]
    together = load_scorer(",".join(str(tmp_path / name) for name in summary["models"]))(prompts, completions)
    assert_close(together, [mean(values) for values in zip(*alone, strict=True)])
    for values in (*alone, together):
        assert_close(torch.tensor(mean(values)), 0.0)
    configs = [AutoModelForSequenceClassification.from_pretrained(tmp_path / name).config for name in summary["models"]]
    shifts = [config.prefloop_reward_shift for config in configs]
    assert len(set(shifts)) == 3 and abs(summary["shift"] - mean(shifts)) < 1e-12


def test_the_first_member_is_the_reward_model_of_a_run_with_one(tmp_path):
    run_reward(tmp_path / "several", members=2, demonstrations="")
    run_reward(tmp_path / "one", demonstrations="")
    assert saved(tmp_path / "several", "model-0") == saved(tmp_path / "one")


def test_unusable_answers_are_below_all_others_or_not_there_at_all(tmp_path):
    write_groups(tmp_path / "data.jsonl", [group("a b", "ab", "ba", unusable="c,d"), group("c d", "cd", "dc")])
    write_groups(tmp_path / "others.jsonl", [group("b a", "ab", "ba", unusable="c,d"), group("d c", "cd", "dc")])
    settings = {"data": tmp_path / "data.jsonl", "validation": tmp_path / "others.jsonl", "demonstrations": ""}
    below, left_out = run_reward(tmp_path / "with", **settings), run_reward(tmp_path / "without", unusable=False, **settings)
    assert below["pairs"] == 5 + 1  # ab over ba, each of them over c and d, which tie; cd over dc
    assert left_out["pairs"] == 1 + 1
    assert (below["pair_accuracy"]["n"], left_out["pair_accuracy"]["n"]) == (6, 2)  # judged as it was trained
    assert left_out["baselines"]["prefers_longer"]["n"] == 2
    judged = json.loads((tmp_path / "without" / "per_prompt.json").read_text())
    assert judged["pairs"] == [1, 1]
    assert history(tmp_path / "with")[0]["loss"] != history(tmp_path / "without")[0]["loss"]


def test_a_prompt_ranked_twice_is_one_prompt_and_two_rankings_also_as_shuffled_pairs(tmp_path):
    write_groups(tmp_path / "data.jsonl", [*UNEQUAL, group("a b", "ba", "ab"), group("b c", "bc,cb")])
    for pairing in ("prompt", "shuffled"):
        told = run_reward(tmp_path / pairing, data=tmp_path / "data.jsonl", demonstrations="", pairing=pairing)
        assert (told["prompts"], told["rankings"], told["pairs"]) == (2, 3, 3 + 1 + 1)  # the tied one orders nothing


def test_ties_teach_nothing_and_a_prompt_of_ties_is_left_out_before_weights_are_set(tmp_path, unequal):
    write_groups(tmp_path / "tied.jsonl", [*UNEQUAL, group("b c", "bc,cb")])
    with_tied = first_loss(tmp_path / "tied", data=tmp_path / "tied.jsonl")
    assert_close(with_tied, first_loss(tmp_path / "untied", data=unequal))
    write_groups(tmp_path / "all.jsonl", [group("b c", "bc,cb")])
    with pytest.raises(DataError, match=r"no prompt of .* has two answers in different places"):
        run_reward(tmp_path / "all", data=tmp_path / "all.jsonl", demonstrations="")


def test_held_out_prompts_are_judged_and_never_learned_from(tmp_path):
    summary = run_reward(tmp_path, held_out=0.4, seed=1)
    groups = read_groups(toy() / "rankings.jsonl").records
    learned = {one.prompt.id for one in groups} - held_out_prompts()
    assert learned and len(learned) < 8
    assert summary["prompts"] == len(learned)
    assert summary["rankings"] == sum(len(one.rankings) for one in groups if one.prompt.id in learned)
    judged = [one for one in groups if one.prompt.id not in learned]
    scorer = reward_scorer(tmp_path / "model")
    scores = [scorer([one.prompt] * len(one.completions), one.completions) for one in judged]
    assert summary["pair_accuracy"] == pair_accuracy(judged, scores)
    assert summary["held_out_loss"] > 0


def held_out_prompts() -> set[str]:
    return {one.prompt.id for one in split_by_prompt(read_groups(toy() / "rankings.jsonl").records, held_out=0.4, seed=1)[1]}


def test_too_few_prompts_to_hold_out_are_counted_as_prompts_not_as_rows(tmp_path):
    with pytest.raises(DataError, match="has 8 different prompts, too few to hold out 0%"):
        run_reward(tmp_path, held_out=0.001)


@pytest.mark.parametrize("unusable", [True, False])
def test_validation_rankings_without_an_order_are_refused_before_the_first_step(tmp_path, unequal, unusable):
    """Otherwise a trained model would be lost when it is judged, and again at every resumption."""
    write_groups(tmp_path / "others.jsonl", [group("b c", "bc,cb", unusable="" if unusable else "c"), group("c a", "ca,ac")])
    with pytest.raises(
        DataError, match=r"none of the 2 rankings of .*others\.jsonl puts two answers in different places(.|\n)*validation="
    ):
        run_reward(tmp_path / "run", data=unequal, validation=tmp_path / "others.jsonl", demonstrations="", unusable=unusable)
    assert not (tmp_path / "run").exists()  # nothing was made, so nothing stays


def test_validation_prompts_that_are_learned_from_are_left_out_and_counted(tmp_path, unequal, capsys):
    write_groups(tmp_path / "others.jsonl", [group("b c", "bc", "cb"), UNEQUAL[0]])
    told = run_reward(tmp_path / "run", data=unequal, validation=tmp_path / "others.jsonl", demonstrations="")
    assert (told["held_out_shared"], told["pair_accuracy"]["n"]) == (1, 1)
    assert "1  rankings of validation left out: their prompts are learned from" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"every prompt of validation = .* is in data = "):
        run_reward(tmp_path / "same", data=unequal, validation=unequal, demonstrations="")
