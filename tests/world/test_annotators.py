import math

import numpy as np
import pytest

from prefloop.errors import DataError
from prefloop.records import Completion, Group, Prompt
from prefloop.world import World
from prefloop.world.annotators import POOL, Annotator, base_utility, pair_probabilities, placed_above, pool, rank
from prefloop.world.gold import TERMS, Judged
from tests.helpers import assert_close
from tests.world.helpers import groups_of

WORLD = World()
GROUPS = groups_of(WORLD, 250, 4)


def by_text(group: Group, ranking) -> tuple:
    """A ranking in words, so that ids do not matter."""
    text = {completion.id: completion.text for completion in group.completions}
    tiers = tuple(frozenset(text[c] for c in tier) for tier in ranking.tiers)
    return (
        tiers,
        frozenset(text[c] for c in ranking.unusable),
        tuple(dict.fromkeys(text[c] for c in ranking.shown)),
        ranking.annotator,
    )


def gold_of(group: Group) -> dict[str, float]:
    return {completion.id: WORLD.gold(group.prompt, completion.text) for completion in group.completions}


def test_annotation_depends_on_text_and_seed_alone():
    first = WORLD.annotate(GROUPS[:60], seed=100)
    assert WORLD.annotate(GROUPS[:60], seed=100) == first
    backwards = [group.model_copy(update={"completions": group.completions[::-1]}) for group in reversed(GROUPS[:60])]
    again = WORLD.annotate(backwards, seed=100)[::-1]
    assert [group.rankings for group in again] == [group.rankings for group in first]
    assert [group.rankings for group in WORLD.annotate(GROUPS[:60], seed=101)] != [group.rankings for group in first]


def test_the_source_of_an_answer_does_not_matter():
    renamed = [
        Group(
            prompt=group.prompt,
            completions=tuple(Completion.of(group.prompt, c.text, source="human:x" + c.source) for c in group.completions),
        )
        for group in GROUPS[:60]
    ]
    for before, after in zip(WORLD.annotate(GROUPS[:60], seed=100), WORLD.annotate(renamed, seed=100), strict=True):
        assert by_text(before, before.rankings[0]) == by_text(after, after.rankings[0])


def test_equal_texts_always_tie():
    prompt = WORLD.prompts(1, split="train", seed=100)[0]
    texts = ["Gladly!", "I hate this.", "Gladly!"]
    group = Group(
        prompt=prompt, completions=tuple(Completion.of(prompt, text, source=f"policy:p@{n}") for n, text in enumerate(texts))
    )
    for seed in range(60):
        place = WORLD.annotate([group], seed=seed)[0].rankings[0].places()
        assert place[group.completions[0].id] == place[group.completions[2].id]


def test_rankings_are_added_one_per_annotator():
    ranked = WORLD.annotate(GROUPS[:40], seed=100, rankings_per_group=3)
    for group in ranked:
        assert len({ranking.annotator for ranking in group.rankings}) == 3
        for ranking in group.rankings:
            assert sorted(ranking.places()) == sorted(ranking.shown) == sorted(completion.id for completion in group.completions)
    more = WORLD.annotate(ranked, seed=101)
    assert all(len(group.rankings) == 4 for group in more)


def test_all_thirteen_annotators_take_part_and_a_smaller_pool_is_its_beginning():
    names = {group.rankings[0].annotator for group in WORLD.annotate(GROUPS, seed=100)}
    assert names == {f"sim:{number}" for number in range(POOL)}
    assert {group.rankings[0].annotator for group in WORLD.annotate(GROUPS, seed=100, annotators=2)} == {"sim:0", "sim:1"}


def test_without_noise_and_flips_the_order_is_the_order_of_gold():
    for group in WORLD.annotate(GROUPS, seed=100, noiseless=True, flip=0.0):
        gold = gold_of(group)
        place = group.rankings[0].places()
        for a in place:
            for b in place:
                assert (round(gold[a] - gold[b], 9) > 0) == (place[a] < place[b])


@pytest.mark.parametrize("k", [2, 4])
def test_a_quarter_of_the_strict_pairs_is_flipped(k):
    groups = groups_of(WORLD, 400, k)
    flipped = []  # share of each ranking's pairs; rankings are independent, pairs of one ranking are not
    for group in WORLD.annotate(groups, seed=100, noiseless=True, flip=0.25):
        gold = gold_of(group)
        if pairs := group.rankings[0].pairs():
            flipped.append(np.mean([gold[better] < gold[worse] for better, worse in pairs]))
    assert len(flipped) > 300
    assert abs(np.mean(flipped) - 0.25) < 4 * np.std(flipped) / math.sqrt(len(flipped))


def test_flips_reorder_tiers_and_change_nothing_else():
    clean, noisy = (WORLD.annotate(GROUPS, seed=100, flip=flip) for flip in (0.0, 0.25))
    same = 0
    for before, after in zip(clean, noisy, strict=True):
        a, b = before.rankings[0], after.rankings[0]
        tiers = [sorted(map(sorted, filter(None, (*ranking.tiers, ranking.unusable)))) for ranking in (a, b)]
        assert tiers[0] == tiers[1]
        assert (a.shown, a.annotator) == (b.shown, b.annotator)
        same += a.tiers == b.tiers
    assert len(GROUPS) / 2 < same < 0.8 * len(GROUPS)  # half are left alone, and a random order is sometimes the old one


def test_the_order_on_the_screen_is_fair():
    groups = WORLD.annotate(GROUPS, seed=100)
    first = [group.completions[0].id == group.rankings[0].shown[0] for group in groups]
    assert abs(sum(first) - len(first) / 4) < 4 * math.sqrt(len(first) * 3 / 16)


def test_bad_answers_are_called_unusable_and_good_ones_are_not():
    groups = WORLD.annotate(groups_of(WORLD, 400, 4), seed=100, flip=0.0)
    rejected = [gold_of(group)[c] for group in groups for c in group.rankings[0].unusable]
    assert len(rejected) >= 3
    assert max(rejected) < 0


def test_thirteen_people_differ_but_none_turns_a_term_around():
    weights = np.array([one.weights for one in pool(POOL)])
    assert (weights > 0).all()
    assert (weights.std(0) > 0.05).all()
    assert len({one.temperature for one in pool(POOL)}) == POOL


def judged(value: float, n_words: int = 0) -> Judged:
    return Judged(dict.fromkeys(TERMS, 0.0) | {"form": value}, n_words)


def someone(**traits) -> Annotator:
    given = {"temperature": 0.5, "length_bias": 0.0, "first_bonus": 0.0, "tie_band": 0.0, "unusable_below": -math.inf}
    return Annotator("sim:test", (1.0,) * len(TERMS), **{**given, **traits})


def three_texts() -> Group:
    prompt = Prompt.of("Name three fruits for the party.")
    return Group(prompt=prompt, completions=tuple(Completion.of(prompt, text) for text in ("a", "b", "c")))


def test_pairs_of_a_ranking_of_three_follow_bradley_terry():
    group, answers, who = three_texts(), [judged(1.0), judged(0.6), judged(0.2)], someone()
    a, b, _ = (completion.id for completion in group.completions)
    n = 1000
    wins = 0
    for seed in range(n):
        place = rank(group, answers, who=who, flip=0.0, key=(seed,)).places()
        wins += place[a] < place[b]
    expected = 1 / (1 + math.exp(-(1.0 - 0.6) / 0.5))
    assert abs(wins / n - expected) < 4 * math.sqrt(expected * (1 - expected) / n)


def test_the_closed_form_is_the_integral_over_the_tie_band():
    for margin, temperature, band in ((0.7, 0.5, 0.9), (-0.3, 0.2, 1.2), (5.0, 0.1, 0.6)):
        middle = (np.arange(200_000) + 0.5) / 200_000 * band
        expected = np.mean(1 / (1 + np.exp(-(margin - middle) / temperature)))
        assert_close(placed_above(np.array(margin), np.array(temperature), np.array(band)), np.float32(expected))


def test_without_ties_the_closed_form_is_bradley_terry_and_without_noise_it_is_the_distance():
    assert_close(float(placed_above(np.array(0.4), np.array(0.5), np.array(0.0))), np.float32(1 / (1 + math.exp(-0.8))))
    assert_close(float(placed_above(np.array(0.3), np.array(0.0), np.array(0.9))), np.float32(0.3 / 0.9))
    assert_close(float(placed_above(np.array(-0.3), np.array(0.0), np.array(0.9))), np.float32(0.0))


def test_pair_probabilities_hold_with_ties_noise_and_position_bias_at_once():
    group, answers = three_texts(), [judged(0.5, 30), judged(0.3, 10), judged(-0.4, 20)]
    who = someone(tie_band=0.8, first_bonus=0.4, length_bias=0.1, temperature=0.3)
    ids = [completion.id for completion in group.completions]
    n, above = 1000, np.zeros((3, 3))
    for seed in range(n):
        place = rank(group, answers, who=who, flip=0.0, key=(seed,)).places()
        above += [[place[one] < place[other] for other in ids] for one in ids]
    expected = pair_probabilities([who], answers, 3).above
    deviation = np.sqrt(expected * (1 - expected) / n) + 1e-12
    off_diagonal = ~np.eye(3, dtype=bool)
    assert (np.abs(above / n - expected) < 4 * deviation)[off_diagonal].all()


def test_length_bias_is_paid_per_ten_words():
    assert_close(base_utility(someone(length_bias=0.2), judged(0.5, 30)), 0.5 + 0.2 * 3)


def test_the_ceiling_is_what_its_own_predictor_reaches():
    """Labels of many seeds on the same pairs: the likelier order of each pair agrees with them as often as the ceiling says."""
    groups = groups_of(WORLD, 60, 2)
    agreements, ceilings = [], []
    for seed in range(100, 105):
        ranked = WORLD.annotate(groups, seed=seed)
        ceilings.append(WORLD.bayes_accuracy(ranked))
        for group in ranked:
            answers = [WORLD.judge(group.prompt, completion.text) for completion in group.completions]
            above = pair_probabilities(pool(POOL), answers, 2).above
            for better, _ in group.rankings[0].pairs():
                likelier = 0 if above[0, 1] > above[1, 0] else 1
                agreements.append(better == group.completions[likelier].id)
    expected = np.mean(ceilings)
    assert abs(np.mean(agreements) - expected) < 4 * math.sqrt(expected * (1 - expected) / len(agreements))


def test_the_ceiling_without_noise_is_one_minus_the_flips():
    ranked = WORLD.annotate(GROUPS, seed=100, noiseless=True, flip=0.25)
    assert_close(WORLD.bayes_accuracy(ranked, noiseless=True, flip=0.25), 0.75)
    exact = WORLD.annotate(GROUPS, seed=100, noiseless=True, flip=0.0)
    assert_close(WORLD.bayes_accuracy(exact, noiseless=True, flip=0.0), 1.0)
    assert_close(WORLD.oracle_accuracy(exact), 1.0)


def test_the_ceiling_of_version_one_is_between_72_and_75_percent():
    ranked = WORLD.annotate(GROUPS, seed=100)
    assert 0.72 < WORLD.bayes_accuracy(ranked) < 0.75


def test_the_order_of_gold_is_nearly_the_best_guess():
    ranked = WORLD.annotate(GROUPS, seed=100, flip=0.0)
    assert abs(WORLD.bayes_accuracy(ranked, flip=0.0) - WORLD.oracle_accuracy(ranked)) < 0.02


def test_groups_without_a_strict_pair_have_no_accuracy():
    assert math.isnan(WORLD.bayes_accuracy(GROUPS[:3]))
    assert math.isnan(WORLD.oracle_accuracy([]))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"flip": 0.6}, "from 0 to 0.5"),
        ({"annotators": 14}, "13 annotators"),
        ({"rankings_per_group": 3, "annotators": 2}, "3 rankings"),
    ],
)
def test_impossible_requests_are_refused(wrong, says):
    with pytest.raises(DataError, match=says):
        WORLD.annotate(GROUPS[:1], seed=100, **wrong)
