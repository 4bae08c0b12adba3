"""RLP's relearning: what synthetic preferences are made of, what the views are, that the representation reaches the backbone."""

import json
from collections import Counter

import numpy as np
import pytest
import torch

from prefloop.data.read import read_groups
from prefloop.data.write import write_groups
from prefloop.engine.randomness import derived_seed
from prefloop.engine.run import Run
from prefloop.errors import ConfigError, DataError
from prefloop.methods.relearn import (
    CODE,
    RelearnConfig,
    Relearner,
    draw_views,
    of_views,
    synthetic_preferences,
)
from prefloop.models.load import load_reward
from prefloop.records import Completion, Group, Prompt
from tests.helpers import assert_close
from tests.methods.toy import WORLD, gold, history, run_relearn, run_reward, saved, toy, toy_encoder


def config(**settings) -> RelearnConfig:
    return RelearnConfig.of(**{"model": "m", "data": "d", "samples": "s", "reward": "r", **settings})


def group_of(texts: str) -> Group:
    """A letter each: the answers of one prompt, the same letter drawn again being another completion."""
    prompt = Prompt.of("x")
    seen: Counter[str] = Counter()
    completions = []
    for text in texts:
        seen[text] += 1
        completions.append(Completion.of(prompt, text, source=f"policy:run@0#{seen[text]}"))
    return Group(prompt=prompt, completions=tuple(completions))


def made(texts: str, score: list[float], *, seed: int = 0, **settings):
    rng = np.random.default_rng(seed)
    groups, counts, _ = synthetic_preferences([group_of(texts)], [score], config(**settings), annotator="policy:run", rng=rng)
    return groups, counts


def winner_and_loser(pairs: list[Group]) -> tuple[str, str]:
    (ranking,) = pairs[0].rankings
    text = {c.id: c.text for c in pairs[0].completions}
    return text[ranking.tiers[0][0]], text[ranking.tiers[1][0]]


def test_the_best_of_the_largest_cluster_wins_over_one_outside_of_it():
    """Six of ten say a or A, which means the same; B has the highest reward and is outside, so it can only lose."""
    score = [0.1, 0.2, 0.9, 0.3, 0.0, 0.1, 5.0, 4.0, 3.0, 2.0]
    for seed in range(20):
        pairs, counts = made("aaAaaaBbcd", score, seed=seed)
        winner, loser = winner_and_loser(pairs)
        assert winner == "A" and loser in "Bbcd"
    assert counts == {"prompts": 1, "pairs": 1}
    assert pairs[0].rankings[0].annotator == "policy:run"


def test_every_answer_outside_loses_about_as_often_as_another():
    lost = Counter(winner_and_loser(made("aaaaaabcde", [0.0] * 10, seed=seed)[0])[1] for seed in range(400))
    assert set(lost) == set("bcde")
    assert min(lost.values()) > 60, "each is expected 100 times; 60 is four and a half standard deviations below"


@pytest.mark.parametrize(
    ("texts", "settings", "reason"),
    [
        ("aaaabcdefg", {}, "not confident"),
        ("aaaaaaaaaa", {}, "all mean the same"),
        ("aAaA", {"confidence": 1.0}, "all mean the same"),
        ("a", {}, "one answer"),
        ("ab", {"pairs": "reward"}, "equal scores"),
        ("ab", {"pairs": "rlaif", "judge": "python:tests.methods.toy:gold"}, "equal scores"),
    ],
)
def test_prompts_that_allow_no_pair_are_counted_by_reason(texts, settings, reason):
    pairs, counts = made(texts, [0.0] * len(texts), **settings)
    assert pairs == [] and counts == {"prompts": 1, reason: 1, "pairs": 0}


def test_half_is_confident_enough_and_zero_selects_all():
    assert len(made("aaaaabcdef", [0.0] * 10)[0]) == 1
    assert len(made("abcdefghij", [0.0] * 10, confidence=0.0)[0]) == 1


def test_the_controls_choose_otherwise():
    score = [0.0, 1.0, 2.0, 0.0]
    random = {winner_and_loser(made("aAab", score, winner="random", seed=seed)[0])[0] for seed in range(20)}
    assert random == {"a", "A"}
    group = group_of("aab")
    long = group.model_copy(
        update={"completions": (*group.completions, Completion.of(group.prompt, "bb bb bb"), Completion.of(group.prompt, "a"))}
    )
    matched = synthetic_preferences([long], [[0.0] * 5], config(length_matched=True), annotator="p", rng=np.random.default_rng(0))
    assert winner_and_loser(matched.groups)[1] == "b"


@pytest.mark.parametrize("settings", [{"pairs": "reward"}, {"pairs": "rlaif", "judge": "python:tests.methods.toy:gold"}])
def test_two_random_answers_are_put_in_the_order_of_a_score_whatever_they_mean(settings):
    ordered, _ = made("ab", [0.0, 1.0], **settings)
    assert winner_and_loser(ordered) == ("b", "a")
    drawn = {winner_and_loser(made("aAb", [0.0, 1.0, 2.0], seed=seed, **settings)[0]) for seed in range(30)}
    assert drawn == {("A", "a"), ("b", "a"), ("b", "A")}


@pytest.mark.parametrize("settings", [{"pairs": "rlaif"}, {"judge": "runs/reward/model"}])
def test_a_judge_and_rlaif_go_together(settings):
    with pytest.raises(ConfigError, match="pairs = rlaif and judge go together"):
        config(**settings)


def test_of_a_prompt_that_is_not_learned_from_the_pair_it_would_have_given_is_told():
    found = synthetic_preferences(
        [group_of("aabc"), group_of("aaaa"), group_of("aab"), group_of("a")],
        [[0.0, 0.0, 5.0, 5.0], [0.0] * 4, [0.0] * 3, [0.0]],
        config(confidence=0.6),
        annotator="p",
        rng=np.random.default_rng(0),
    ).found
    assert [one.reason for one in found] == ["not confident", "all mean the same", "", "one answer"]
    assert_close([found[0].confidence, found[1].confidence, found[2].confidence], [0.5, 1.0, 2 / 3])
    assert found[0].winner in (0, 1) and found[0].loser in (2, 3)
    assert (found[2].winner, found[2].loser) == (0, 2)
    assert (found[1].winner, found[3].confidence) == (None, None)


def test_a_relation_that_errs_makes_other_clusters():
    """Thirty prompts say one thing ten times in ten ways; the exact relation leaves nothing outside, one that errs does."""
    same = "python:tests.methods.test_relearn:always"
    groups = [group_of("abcdefghij").model_copy(update={"prompt": Prompt.of(str(n))}) for n in range(30)]
    for noise, expected in ((0.0, 0), (0.3, 30)):
        settings = config(same=same, noise=noise)
        one_text_less = [g.model_copy(update={"completions": g.completions[n % 5 :]}) for n, g in enumerate(groups)]
        scored = [[0.0] * len(g.completions) for g in one_text_less]
        made = synthetic_preferences(one_text_less, scored, settings, annotator="p", rng=np.random.default_rng(0))
        assert len([one for one in made.found if one.reason != "all mean the same"]) == expected


def always(first: str, second: str) -> bool:
    return True


def shouted(first: str, second: str) -> bool:
    return first.isupper() == second.isupper()


def test_any_relation_of_two_texts_can_be_named():
    pairs, _ = made("abcD", [3.0, 2.0, 1.0, 0.0], same="python:tests.methods.test_relearn:shouted")
    assert winner_and_loser(pairs) == ("a", "D")
    with pytest.raises(ConfigError, match="names nothing that can be imported"):
        made("ab", [0.0, 0.0], same="python:tests.methods.test_relearn:absent")
    with pytest.raises(ConfigError, match="is no equivalence of two texts"):
        made("ab", [0.0, 0.0], same="nli")


def test_the_relation_may_depend_on_the_prompt_and_sees_each_text_once():
    asked = []

    def meaning(prompt, texts):
        asked.append((prompt.text, texts))
        return shouted

    groups = [group_of("abbD")]
    found = synthetic_preferences(
        groups, [[0.0] * 4], config(), annotator="p", rng=np.random.default_rng(0), meaning=meaning
    ).found
    assert asked == [("x", ["D", "a", "b"])]
    assert_close(found[0].confidence, 0.75)


# ------------------------------------------------------------------------------------------------ views


def sampled():
    return toy_encoder().candidates(WORLD.groups(WORLD.demonstration_logprobs, 8, k=4, seed=0))


def test_views_are_two_answers_of_one_prompt_and_answers_of_others():
    batch, rows = sampled(), torch.arange(8)
    whole = {}
    for p in range(8):
        for k in range(4):
            n = int(batch.completion_length[p, k])
            text = (*batch.prompt[p, : batch.prompt_length[p]].tolist(), *batch.completion[p, k, :n].tolist())
            whole.setdefault(text, set()).add((p, k))
    for seed in range(10):
        views = draw_views(batch, rows, 3, torch.Generator().manual_seed(seed))
        for p in range(8):
            texts = [tuple(views.completion[p, v, : views.completion_length[p, v]].tolist()) for v in range(5)]
            assert texts[0] != texts[1], "two different answers"
            assert all(any(q == p for q, _ in whole[text]) for text in texts[:2])
            assert all(all(q != p for q, _ in whole[text]) for text in texts[2:])
        assert views.noise.shape == (8, 5 * CODE)


@pytest.mark.parametrize("representation", ["mib", "mvi", "infomax", "contrastive"])
def test_the_representation_reaches_the_backbone_and_parts_add_up(representation):
    model = Relearner(load_reward(toy() / "reward" / "model"), seed=0).train()
    views = draw_views(sampled(), torch.arange(8), 2, torch.Generator().manual_seed(0))
    value = of_views(model, views, representation=representation).value
    value.backward()
    backbone = model.reward.base_model.layers[0].self_attn.q_proj.weight.grad
    assert float(backbone.abs().sum()) > 0
    from prefloop.models.batch import take, trim

    with torch.no_grad():
        parts = sum(
            of_views(model, trim(take(views, rows)), representation=representation).value for rows in torch.arange(8).split(3)
        )
    assert_close(parts, value)


# ------------------------------------------------------------------------------------------------ runs


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"representation": "mib"},
        {"pairs": "none", "representation": "contrastive", "negatives": 4},
        {"pairs": "rlaif", "judge": "python:tests.methods.toy:gold"},
    ],
)
def test_a_run_learns_writes_its_preferences_down_and_judges_on_people(tmp_path, settings):
    summary = run_relearn(tmp_path, epochs=2, held_out=0.3, optim={"lr": 2e-3}, **settings)
    lines = history(tmp_path)
    assert np.mean([line["accuracy"] for line in lines[-4:]]) > np.mean([line["accuracy"] for line in lines[:4]])
    assert summary["pair_accuracy"]["n_prompts"] > 0
    judged = json.loads((tmp_path / "per_prompt.json").read_text())
    hits = np.dot(judged["pairs"], judged["accuracy"])
    assert_close(hits / sum(judged["pairs"]), summary["pair_accuracy"]["mean"])
    if settings.get("pairs") == "none":
        assert not (tmp_path / "synthetic.jsonl").exists() and summary["synthetic"] == {}
    else:
        written = read_groups(tmp_path / "synthetic.jsonl").records
        assert len(written) == summary["synthetic"]["pairs"] > 0
        assert all(len(group.completions) == 2 for group in written)
        lines = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
        learned = [(line["prompt_id"], line["winner"], line["loser"]) for line in lines if not line["reason"]]
        assert learned == [(group.prompt.id, *(c.text for c in group.completions)) for group in written]
        assert len(lines) == summary["synthetic"]["prompts"] >= len(written)
        if settings.get("pairs") == "rlaif":
            assert {group.rankings[0].annotator for group in written} == {"judge"}
            assert all(gold([g.prompt], [g.completions[0]]) > gold([g.prompt], [g.completions[1]]) for g in written)
            assert summary["synthetic"]["confidence"] == {}
        else:
            told = [round(line["confidence"], 1) for line in lines if line["confidence"]]
            assert summary["synthetic"]["confidence"] == {f"{c:.1f}": n for c, n in sorted(Counter(told).items())}
            assert {group.rankings[0].annotator[:7] for group in written} == {"policy:"}


def test_without_a_representation_the_seed_of_its_heads_changes_nothing(tmp_path, monkeypatch):
    run_relearn(tmp_path / "one")
    honest = Relearner.__init__
    monkeypatch.setattr(Relearner, "__init__", lambda self, reward, *, seed: honest(self, reward, seed=seed + 1))
    run_relearn(tmp_path / "two")
    assert saved(tmp_path / "one") == saved(tmp_path / "two")


def test_with_lambda_zero_a_representation_leaves_the_reward_bitwise_as_it_is(tmp_path, monkeypatch):
    """The configuration refuses 0, where the term would be computed for nothing. Clipping is off: a norm over more numbers rounds otherwise."""
    unclipped = {"optim": {"lr": 1e-3, "grad_clip": 0.0}}
    run_relearn(tmp_path / "plain", **unclipped)
    stated = RelearnConfig.of.__func__
    monkeypatch.setattr(RelearnConfig, "of", classmethod(lambda cls, **own: stated(cls, **own).model_copy(update={"lam": 0.0})))
    run_relearn(tmp_path / "zero", representation="mib", **unclipped)
    assert "of_views/skl" in history(tmp_path / "zero")[0]
    assert saved(tmp_path / "zero") == saved(tmp_path / "plain")
    monkeypatch.undo()
    run_relearn(tmp_path / "half", representation="mib", **unclipped)
    assert saved(tmp_path / "half") != saved(tmp_path / "plain")


def test_without_a_representation_it_is_reward_training_on_both_kinds_of_rankings_to_the_last_bit(tmp_path, monkeypatch):
    """A reward run draws the head of each member from a seed of its own; here both draw the same."""
    monkeypatch.setattr(Run, "seed", lambda run, *key: derived_seed(run.run_seed, key[0]))
    alike = {"optim": {"lr": 1e-3, "warmup": 0, "schedule": "constant"}, "batch": 16}
    run_relearn(tmp_path / "relearned", **alike)
    both = [*read_groups(toy() / "rankings.jsonl").records, *read_groups(tmp_path / "relearned" / "synthetic.jsonl").records]
    write_groups(tmp_path / "both.jsonl", both)
    run_reward(tmp_path / "reward", model=toy() / "sft" / "model", data=tmp_path / "both.jsonl", demonstrations="", **alike)
    assert history(tmp_path / "reward")[-1]["loss"] == history(tmp_path / "relearned")[-1]["loss"]
    assert saved(tmp_path / "reward") == saved(tmp_path / "relearned")


def test_the_same_seed_makes_the_same_pairs_and_another_seed_others():
    said = [made("aaaaaabcdefg", [0.0] * 12, winner="random", seed=seed)[0] for seed in (3, 3, *range(4, 10))]
    assert said[0] == said[1]
    assert len({winner_and_loser(pairs) for pairs in said}) > 1


def test_nothing_new_to_learn_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="that is prefloop reward on the same rankings"):
        config(pairs="none")
    lonely = [
        group.model_copy(update={"completions": group.completions[:1]})
        for group in read_groups(samples(), allow_unranked=True).records
    ]
    write_groups(tmp_path / "lonely.jsonl", lonely)
    with pytest.raises(DataError, match=r"gives a synthetic preference \(one answer: \d+\)"):
        run_relearn(tmp_path / "run", samples=tmp_path / "lonely.jsonl")
    alike = [
        group.model_copy(
            update={
                "completions": tuple(c.model_copy(update={"content": group.completions[0].content}) for c in group.completions)
            }
        )
        for group in read_groups(samples(), allow_unranked=True).records
    ]
    write_groups(tmp_path / "alike.jsonl", alike)
    with pytest.raises(DataError, match=r"gives a synthetic preference \(all mean the same: \d+\)"):
        run_relearn(tmp_path / "same", samples=tmp_path / "alike.jsonl")
    with pytest.raises(DataError, match=r"8 of 8 prompts .* give a synthetic preference\n.*lower least_pairs= \(1000\)"):
        run_relearn(tmp_path / "few", least_pairs=1000)


def test_without_synthetic_preferences_it_goes_on_where_that_is_asked_for_and_is_the_reward_again(tmp_path, monkeypatch, capsys):
    """Rankings alone, step for step: as ``prefloop reward`` on the same file."""
    monkeypatch.setattr(Run, "seed", lambda run, *key: derived_seed(run.run_seed, key[0]))
    lonely = [
        group.model_copy(update={"completions": group.completions[:1]})
        for group in read_groups(samples(), allow_unranked=True).records
    ]
    write_groups(tmp_path / "lonely.jsonl", lonely)
    alike = {"optim": {"lr": 1e-3, "warmup": 0, "schedule": "constant"}, "batch": 16}
    told = run_relearn(tmp_path / "relearned", samples=tmp_path / "lonely.jsonl", least_pairs=0, **alike)
    assert "learning from people's rankings alone (least_pairs=0)" in capsys.readouterr().err
    assert told["synthetic"]["pairs"] == 0
    run_reward(tmp_path / "reward", model=toy() / "sft" / "model", data=toy() / "rankings.jsonl", demonstrations="", **alike)
    assert saved(tmp_path / "reward") == saved(tmp_path / "relearned")


def samples() -> str:
    return str(toy() / "samples.jsonl")
