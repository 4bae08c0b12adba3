"""The reward model: one forward per completion, all pairs of a prompt in one row, scores that are 0 for demonstrations."""

import math
from itertools import combinations

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from prefloop.data.read import read_demonstrations, read_groups
from prefloop.data.write import split_by_prompt, write_groups
from prefloop.engine.randomness import derived_seed
from prefloop.errors import DataError
from prefloop.models import heads
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


def losses_at_the_start(groups, *, noise: float = 0.0) -> list[list[float]]:
    """-log of the probability of every ordered pair under a new reward model, from transformers alone: a list per group."""
    model, encoder = new_reward(toy() / "base", seed=derived_seed(0, "head", 0)), toy_encoder()
    found = []
    for one in groups:
        score = {}
        for completion in one.completions:
            ids = encoder.prompt_ids(one.prompt) + encoder.completion_ids(completion.text)
            with torch.no_grad():
                score[completion.id] = float(model(torch.tensor([ids])).logits)
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
    three, one = losses_at_the_start(UNEQUAL, noise=0.3)
    assert_close(first_loss(tmp_path / "run", data=unequal, noise=0.3), mean([mean(three), mean(one)]))
    assert abs(mean([mean(three), mean(one)]) - mean(list(map(mean, losses_at_the_start(UNEQUAL))))) > 1e-3


@pytest.mark.parametrize(("pairing", "passes"), [("prompt", 4 + 2), ("shuffled", 2 * (4 + 1))])
def test_each_completion_goes_through_the_network_once_a_pass_not_once_a_pair(tmp_path, monkeypatch, pairing, passes):
    """Four answers in three tiers make 5 pairs; two answers make one."""
    groups = (group("a b", "ab", "ba,bb", "c"), group("c d", "cd", "dc"))
    expected = passes if pairing == "prompt" else 2 * (len(groups[0].rankings[0].pairs()) + 1)
    write_groups(tmp_path / "groups.jsonl", groups)
    seen = []

    def counted(model, tokens, length, plain=heads.sequence_rewards):
        seen.append(len(length))
        return plain(model, tokens, length)

    monkeypatch.setattr(heads, "sequence_rewards", counted)
    summary = run_reward(tmp_path / "run", data=tmp_path / "groups.jsonl", demonstrations="", pairing=pairing, epochs=3)
    assert summary["pairs"] == 5 + 1
    assert sum(seen) == 3 * expected


def test_micro_batches_do_not_make_it_more(tmp_path, monkeypatch):
    groups = (group("a b", "ab", "ba", "c", "d"), group("c d", "cd", "dc"))
    write_groups(tmp_path / "groups.jsonl", groups)
    seen = []

    def counted(model, tokens, length, plain=heads.sequence_rewards):
        seen.append(len(length))
        return plain(model, tokens, length)

    monkeypatch.setattr(heads, "sequence_rewards", counted)
    run_reward(tmp_path / "run", data=tmp_path / "groups.jsonl", demonstrations="", optim={"micro_batch": 1})
    assert sorted(seen) == [2, 4]


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


def test_members_differ_and_their_mean_is_zero_on_demonstrations(tmp_path):
    summary = run_reward(tmp_path, members=3, batch=64)
    assert summary["models"] == ["model-0", "model-1", "model-2"]
    for a, b in combinations(summary["models"], 2):
        assert saved(tmp_path, a) != saved(tmp_path, b)
    shown = read_demonstrations(toy() / "demonstrations.jsonl").records
    prompts, completions = [d.prompt for d in shown], [d.completion for d in shown]
    alone = [load_scorer(str(tmp_path / name))(prompts, completions) for name in summary["models"]]
    together = load_scorer(",".join(str(tmp_path / name) for name in summary["models"]))(prompts, completions)
    assert_close(together, [mean(values) for values in zip(*alone, strict=True)])
    assert_close(torch.tensor(mean(together)), 0.0)
    assert all(abs(mean(values)) > 1e-4 for values in alone)  # it is the ensemble that is shifted, not each member


def test_the_first_member_is_the_reward_model_of_a_run_with_one(tmp_path):
    run_reward(tmp_path / "several", members=2, demonstrations="")
    run_reward(tmp_path / "one", demonstrations="")
    assert saved(tmp_path / "several", "model-0") == saved(tmp_path / "one")


def test_unusable_answers_are_below_all_others_or_not_there_at_all(tmp_path):
    write_groups(tmp_path / "data.jsonl", [group("a b", "ab", "ba", unusable="c,d"), group("c d", "cd", "dc")])
    settings = {"data": tmp_path / "data.jsonl", "demonstrations": ""}
    below, left_out = run_reward(tmp_path / "with", **settings), run_reward(tmp_path / "without", unusable=False, **settings)
    assert below["pairs"] == 5 + 1  # ab over ba, each of them over c and d, which tie; cd over dc
    assert left_out["pairs"] == 1 + 1
    assert history(tmp_path / "with")[0]["loss"] != history(tmp_path / "without")[0]["loss"]


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
    assert summary["prompts"] == sum(one.prompt.id in learned for one in groups)
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
