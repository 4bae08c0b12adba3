"""A simulated benchmark: whom the pool prefers, orders side by side, whether gold falls again, and a run of all of it."""

import json
import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import yaml

from prefloop.config import Options
from prefloop.data.write import write_groups, write_prompts
from prefloop.errors import ConfigError, DataError
from prefloop.evaluate.benchmark import (
    BenchmarkConfig,
    judges,
    main,
    marked,
    powers_of_two,
    preferred,
    scores_of,
    share_above,
    won,
)
from prefloop.evaluate.benchmark_over_seeds import BASELINE, agreement, bend, over_runs
from prefloop.models.load import save_model
from prefloop.models.tokenizer import new_llama, train_tokenizer
from prefloop.records import Completion, Group, Prompt, Text
from prefloop.stats.best_of_n import picked_by_best_of_n
from prefloop.world import World
from prefloop.world.annotators import PERFECT, Annotator, annotator, pair_probabilities, pool, rank
from tests.command_line import prefloop
from tests.evaluate import scorers
from tests.helpers import assert_close

EN = World()
PROMPTS = EN.prompts(6, split="held_out", seed=0)
ANSWERS = [demonstration.completion.text for demonstration in EN.demonstrations(4, seed=3)]
PEOPLE = pool(13)


def judged(texts: list[str], prompt: Prompt = PROMPTS[0]) -> list:
    return [EN.judge(prompt, text) for text in texts]


def group(prompt: Prompt, *texts: str) -> Group:
    """As sample writes it with repeats=true: of equal answers each has an id of its own."""
    said = (Completion(id=f"c{i}", prompt_id=prompt.id, content=Text(text=text)) for i, text in enumerate(texts))
    return Group(prompt=prompt, completions=tuple(said))


# ------------------------------------------------------------------------------------------------ judgments


def test_the_pool_prefers_as_its_pair_probabilities_say_with_a_tie_for_half():
    ours, theirs = judged(ANSWERS[:2]), judged(ANSWERS[2:])
    table = preferred(ours, theirs, PEOPLE)
    for i, a in enumerate(ours):
        for j, b in enumerate(theirs):
            above, below = pair_probabilities(PEOPLE, [a, b], 2)
            assert_close(table[i, j], above[0, 1] + (1 - above[0, 1] - below[0, 1]) / 2)


def test_whoever_wins_against_one_loses_as_often_against_the_other_and_an_answer_ties_with_itself():
    ours = judged(ANSWERS)
    table = preferred(ours, ours, PEOPLE)
    assert_close(table + table.T, np.ones((4, 4)))
    assert_close(np.diag(table), np.full(4, 0.5))
    assert 0 < table.min() < 0.5 < table.max() < 1


def test_an_annotator_without_noise_prefers_what_gold_prefers():
    ours = judged(ANSWERS)
    worth = [EN.gold(PROMPTS[0], text) for text in ANSWERS]
    assert_close(preferred(ours, ours, [PERFECT]), share_above(worth, worth))


def test_the_preference_of_one_annotator_is_what_its_rankings_come_to():
    """2,000 rankings of a pair in which neither is sure to win, each with random numbers of its own."""
    who: Annotator = annotator(2)
    near = ["This is a small note.", "This is a note, and it is small."]
    asked = group(PROMPTS[0], *near)
    chance = preferred(judged(near[:1]), judged(near[1:]), [who])[0, 0]
    assert 0.1 < chance < 0.9
    n, first = 2000, asked.completions[0].id
    marks = []
    for key in range(n):
        places = rank(asked, judged(near), who=who, flip=0.0, key=(key,)).places()
        other = places[asked.completions[1].id]
        marks.append(0.5 if places[first] == other else float(places[first] < other))
    assert abs(np.mean(marks) - chance) < 4 * np.std(marks) / math.sqrt(n)  # four standard errors


def test_marks_are_those_of_two_judgments_drawn_apart():
    """By hand: (0.5, 0.2, 0.3) and (0.1, 0.6, 0.3) say the same with 0.05 + 0.12 + 0.09, and one alone ties with 0.08 + 0.48."""
    a, b = np.array([0.5, 0.2, 0.3]), np.array([0.1, 0.6, 0.3])
    assert_close(marked(a, b), 0.26 + 0.56 / 2)
    assert_close(marked(a, b), marked(b, a))


def test_whoever_sees_gold_agrees_with_gold_and_with_itself_whichever_is_shown_first():
    told = judges(judged(ANSWERS[:1]), judged(ANSWERS[1:]), [PERFECT, PERFECT])
    assert_close([told["gold"], told["others"], told["swapped"]], [1.0, 1.0, 1.0])


def test_whoever_prefers_the_first_contradicts_itself_when_the_answers_change_places():
    first = replace(PERFECT, first_bonus=100.0)
    told = judges(judged(ANSWERS[:1]), judged(ANSWERS[1:]), [first, first])
    assert_close([told["swapped"], told["others"], told["gold"]], [0.0, 1.0, 0.5])


def test_the_pool_is_between_a_coin_and_certainty():
    told = judges(judged(ANSWERS[:2]), judged(ANSWERS[2:]), PEOPLE)
    assert 0.5 < told["others"] < 1 and 0.5 < told["swapped"] < 1 and 0.5 < told["gold"] < 1


def test_of_each_draw_the_share_of_rivals_it_beats():
    drawn, rivals = [judged(ANSWERS)], [judged(ANSWERS[:3])]
    by_pool, by_gold = won(drawn, rivals, PEOPLE)
    worth = [EN.gold(PROMPTS[0], text) for text in ANSWERS]
    assert_close(by_gold[0], [np.mean([1.0 if w > r else 0.5 if w == r else 0.0 for r in worth[:3]]) for w in worth])
    assert_close(by_pool[0], preferred(drawn[0], rivals[0], PEOPLE).mean(1))


def test_an_answer_that_was_drawn_several_times_is_scored_once_and_counts_several_times():
    asked = []

    def counting(prompts, completions):
        asked.extend(c.text for c in completions)
        return scorers.words(prompts, completions)

    table = scores_of(counting, [group(PROMPTS[0], "a", "b b", "a"), group(PROMPTS[1], "a", "c c c", "c c c")])
    assert_close(table, np.array([[1.0, 2.0, 1.0], [1.0, 3.0, 3.0]]))
    assert sorted(asked) == ["a", "a", "b b", "c c c"]


def test_best_of_n_is_followed_in_powers_of_two():
    assert [powers_of_two(n) for n in (1, 2, 5, 8)] == [[1], [1, 2], [1, 2, 4, 5], [1, 2, 4, 8]]


# ------------------------------------------------------------------------------------------------ orders


def tables(*means: float, n: int = 30, sd: float = 0.0, seeds: int = 2) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [np.array(means)[:, None] + sd * rng.normal(size=(len(means), n)) for _ in range(seeds)]


def test_orders_that_agree_that_are_reversed_and_that_differ_by_one_exchange():
    """Of four, exchanging two neighbours leaves 1 - 6 * 2 / (4 * 15) = 0.8."""
    for other, expected in (((10, 20, 30, 40), 1.0), ((4, 3, 2, 1), -1.0), ((1, 3, 2, 4), 0.8)):
        told = agreement(tables(1, 2, 3, 4), tables(*other))
        assert_close(
            [told["spearman"], told["low"], told["high"]], [expected] * 3
        )  # prompts that all say the same leave no doubt
        assert (told["methods"], told["seeds"]) == (4, 2)
    assert told["over_methods"]["low"] < 0.8 <= told["over_methods"]["high"] <= 1


def test_where_the_orders_are_the_same_nothing_is_said_about_other_methods():
    assert agreement(tables(1, 2, 3), tables(1, 2, 3))["over_methods"] == {"low": None, "high": None}


def test_an_order_that_prompts_leave_open_has_a_wide_interval_and_more_prompts_narrow_it():
    widths = []
    for n in (10, 400):
        told = agreement(tables(0.0, 0.3, 0.6, 0.9, sd=1.0, n=n), tables(0.0, 0.3, 0.6, 0.9, n=n))
        widths.append(told["high"] - told["low"])
    assert widths[0] > 0.5 > widths[1]


def test_a_method_is_its_mean_over_seeds_and_prompts():
    """Either seed alone has another order than both together."""
    a = [np.array([[0.0], [3.0], [1.0]]), np.array([[2.0], [0.0], [4.0]])]  # means 1, 1.5, 2.5
    assert agreement(a, tables(1, 2, 3, n=1))["spearman"] == 1.0
    assert agreement(a[:1], tables(1, 2, 3, n=1, seeds=1))["spearman"] < 1


def test_methods_that_are_all_alike_have_no_order():
    told = agreement(tables(1, 1, 1), tables(1, 2, 3))
    assert (told["spearman"], told["low"], told["high"]) == (None, None, None)


# ------------------------------------------------------------------------------------------------ the bend


def found(gold: np.ndarray) -> list[dict[str, Any]]:
    return [{"n": [2**i for i in range(gold.shape[1])], "gold": gold.tolist(), "proxy": gold.tolist()}]


def names(n: int) -> list[list[str]]:
    return [[f"p{i}" for i in range(n)]]


def test_gold_that_goes_on_rising_does_not_fall():
    told = bend(found(np.tile([0.0, 1.0, 2.0, 3.0], (20, 1))), names(20))
    assert (told["best_n"], told["fall"]["mean"], told["inverted_u"]) == (8, 0.0, False)


def test_gold_that_falls_by_one_from_where_it_was_highest_falls_by_one():
    rng = np.random.default_rng(0)
    told = bend(found(np.array([0.0, 2.0, 3.0, 2.0]) + 0.1 * rng.normal(size=(40, 1))), names(40))
    assert (told["best_n"], told["inverted_u"]) == (4, True)
    assert_close(told["fall"]["mean"], -1.0)


def test_a_curve_of_the_best_of_n_form_has_its_coefficients_and_its_peak():
    """R = d (2 - d): highest at d = 1, where it is 1."""
    sizes = [2**i for i in range(9)]
    d = np.sqrt([math.log(n) - (n - 1) / n for n in sizes])
    told = bend([{"n": sizes, "gold": np.tile(5 + d * (2 - d), (8, 1)).tolist()}], names(8))
    assert_close([told["a"], told["b"], told["peak"]["distance"], told["peak"]["height"]], [2.0, 1.0, 1.0, 1.0])
    assert told["peak"]["measured"] is True


def test_two_rewards_are_compared_by_how_far_gold_falls_prompt_by_prompt():
    """The one falls by 1 and the other by 3 on every prompt, however much prompts differ."""
    noise = np.random.default_rng(0).normal(size=(30, 1))
    golds = {"gently": np.array([0.0, 5.0, 4.0]) + noise, "deeply": np.array([0.0, 5.0, 2.0]) + noise}
    answers = {labels: {BASELINE: {f: [0.5] * 30 for f in ("gold", "win_gold", "win_pool")}} for labels in ("simulated", "real")}
    run = {
        "prompts": names(30)[0],
        "answers": answers,
        "judges": {},
        "best_of_n": {name: found(g)[0] for name, g in golds.items()},
    }
    (pair,) = over_runs([run])["paired"]  # the baseline is the same under both labels: nothing to compare
    assert (pair["a"], pair["b"], pair["metric"]) == ("gently", "deeply", "fall")
    assert_close([pair["mean"], pair["low"], pair["high"]], [2.0, 2.0, 2.0])


def test_flat_gold_with_noise_is_not_taken_for_a_fall():
    """From the highest of eight noisy points the last one falls by 0.2 on average; from another half's highest by nothing."""
    rng = np.random.default_rng(0)
    fair, naive = [], []
    for _ in range(200):
        gold = rng.normal(size=(40, 8))
        mean = gold.mean(0)
        naive.append(mean[-1] - mean.max())
        fair.append(bend(found(gold), names(40))["fall"]["mean"])
    assert np.mean(naive) < -0.15
    assert abs(np.mean(fair)) < 4 * np.std(fair) / math.sqrt(200)  # four standard errors


# ------------------------------------------------------------------------------------------------ a run


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two tiny policies that have seen nothing, and draws to choose from."""
    folder = tmp_path_factory.mktemp("benchmark")
    tokenizer = train_tokenizer(EN.corpus(60, seed=0), vocab_size=300)
    for seed in (0, 1):
        model = new_llama(tokenizer, width=16, layers=1, heads=1, kv_heads=1, context=128, seed=seed)
        save_model(model, tokenizer, folder / f"policy-{seed}", card={"method": "none"})
    write_prompts(folder / "prompts.jsonl", PROMPTS)
    write_groups(folder / "draws.jsonl", [group(p, *ANSWERS, ANSWERS[0]) for p in PROMPTS])
    return folder


def settings(files, **own) -> BenchmarkConfig:
    given = {
        "baseline": str(files / "policy-0"), "simulated": {"ppo": str(files / "policy-1")}, "real": {"ppo": str(files / "policy-0")},
        "prompts": str(files / "prompts.jsonl"), "draws": str(files / "draws.jsonl"), "max_new_tokens": 6, "template": "plain",
        "rewards": {"gold": "world:en", "words": "python:tests.evaluate.scorers:words"},
        "best_of": {"n": 4, "simulated": "words", "real": "gold"}, "n": 6,
    }  # fmt: skip
    return BenchmarkConfig.of(**given | own)


@pytest.fixture(scope="module")
def ran(files):
    summary = main(settings(files), Options(out=files / "run", device="cpu"))
    return summary, json.loads((files / "run" / "per_prompt.json").read_text())


def test_every_method_has_its_row_under_both_kinds_of_labels_and_the_baseline_wins_half(ran):
    summary, told = ran
    methods = ["baseline", "ppo", "best_of_4"]
    assert [(row["labels"], row["method"]) for row in summary["rows"]] == [(s, m) for s in ("simulated", "real") for m in methods]
    assert told["prompts"] == [prompt.id for prompt in PROMPTS]
    for row in summary["rows"]:
        assert all(row[figure]["n_prompts"] == 6 for figure in ("gold", "win_gold", "win_pool"))
        if row["method"] == BASELINE:
            assert (row["win_gold"]["mean"], row["win_pool"]["mean"]) == (0.5, 0.5)
    assert all(summary["judges"][name]["n_prompts"] == 6 for name in ("gold", "others", "swapped"))
    assert {(row["order"], row["methods"]) for row in summary["orders"]} == {("benchmark", 3), ("judge", 3), ("labels", 3)}


def test_best_of_n_is_expected_without_another_draw_and_chooses_by_the_reward_of_its_labels(ran):
    _, told = ran
    texts = [*ANSWERS, ANSWERS[0]]
    gold = np.array([[round(EN.gold(p, t), 9) for t in texts] for p in PROMPTS])
    words = np.array([[float(len(t.split())) for t in texts] for _ in PROMPTS])
    for labels, proxy in (("simulated", words), ("real", gold)):
        assert_close(told["answers"][labels]["best_of_4"]["gold"], picked_by_best_of_n(proxy, gold, [4])[0])
    curve = told["best_of_n"]["gold"]
    assert curve["n"] == [1, 2, 4, 5]
    assert_close(np.array(curve["gold"])[:, 0], gold.mean(1))
    assert_close(np.array(curve["gold"])[:, -1], gold.max(1))
    assert all(a <= b + 1e-12 for row in curve["gold"] for a, b in pairwise(row))


def test_what_labels_of_the_truth_are_worth_to_a_method_is_told_prompt_by_prompt(ran):
    summary, told = ran
    pairs = {(p["a"], p["b"]): p for p in summary["paired"] if p["metric"] == "gold"}
    assert set(pairs) == {("real/ppo", "simulated/ppo"), ("real/best_of_4", "simulated/best_of_4")}
    for method in ("ppo", "best_of_4"):
        gaps = np.subtract(told["answers"]["real"][method]["gold"], told["answers"]["simulated"][method]["gold"])
        pair = pairs[f"real/{method}", f"simulated/{method}"]
        assert_close(pair["mean"], float(gaps.mean()))
        assert pair["low"] <= pair["mean"] <= pair["high"]


def test_each_order_is_of_the_labels_and_the_judge_it_is_named_for():
    """Four methods, the baseline among them; every column has an order of its own, so that no two correlations are the same."""
    columns = {
        ("simulated", "win_pool"): (1, 2, 3, 4),
        ("simulated", "win_gold"): (2, 1, 3, 4),
        ("real", "win_gold"): (4, 2, 3, 1),
        ("real", "win_pool"): (3, 4, 1, 2),
    }
    answers = {
        labels: {
            m: {"gold": [0.0] * 6} | {f: [float(columns[labels, f][i])] * 6 for f in ("win_gold", "win_pool")}
            for i, m in enumerate((BASELINE, "x", "y", "z"))
        }
        for labels in ("simulated", "real")
    }
    told = over_runs([{"prompts": names(6)[0], "answers": answers, "judges": {}, "best_of_n": {}}])
    found = {row["order"]: row["spearman"] for row in told["orders"]}
    # 1 - 6 * (sum of squared differences of ranks) / 60
    assert_close([found["benchmark"], found["judge"], found["labels"]], [1 - 6 * 18 / 60, 1 - 6 * 2 / 60, 1 - 6 * 14 / 60])


def test_of_several_seeds_the_table_is_of_all_of_them(ran):
    _, told = ran
    moved = json.loads(json.dumps(told))
    moved["prompts"] = [f"other {name}" for name in told["prompts"]]
    moved["answers"]["real"]["ppo"]["gold"] = [value + 1 for value in told["answers"]["real"]["ppo"]["gold"]]
    row = next(r for r in over_runs([told, moved])["rows"] if (r["labels"], r["method"]) == ("real", "ppo"))
    assert_close(row["gold"]["mean"], float(np.mean(told["answers"]["real"]["ppo"]["gold"])) + 0.5)
    assert row["gold"]["n_seeds"] == 2


def test_a_study_tells_it_over_its_seeds(files, tmp_path):
    given = settings(files).model_dump(mode="json", exclude={"seed"})
    study = {"name": "tiny", "seeds": [0, 1], "stages": {"benchmark": {"do": "benchmark", **given}}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(study))
    outcome = prefloop("run", tmp_path / "tiny.yaml", "--out", tmp_path / "out", "--device", "cpu")
    assert outcome.code == 0, outcome.err
    told = json.loads((tmp_path / "out" / "summary.json").read_text())["benchmarks"]["benchmark"]
    assert {row["gold"]["n_seeds"] for row in told["rows"]} == {2}
    assert {row["gold"]["n_prompts"] for row in told["rows"]} == {6}  # both seeds asked the same six
    assert {order["seeds"] for order in told["orders"]} == {2}


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"real": {"dpo": "x"}}, "in one of them alone: dpo, ppo"),
        ({"draws": ""}, "draws and rewards belong together"),
        ({"simulated": {}, "real": {}, "draws": "", "rewards": {}, "best_of": None}, "there is nothing to compare"),
        ({"best_of": {"simulated": "gold", "real": "ceiling"}}, "best_of names ceiling; rewards has gold, words"),
        ({"simulated": {"baseline": "x"}, "real": {"baseline": "y"}}, "rows of their own"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(files, own, message):
    with pytest.raises(ConfigError, match=message):
        settings(files, **own)


def test_draws_that_cannot_be_compared_are_refused(files, tmp_path):
    write_groups(tmp_path / "few.jsonl", [group(p, *ANSWERS) for p in PROMPTS[:5]])
    with pytest.raises(DataError, match=r"has no answers to 1 of 6 prompts.*\n  draw them from the same prompts"):
        main(settings(files, draws=str(tmp_path / "few.jsonl")), Options(out=tmp_path / "few", device="cpu"))
    write_groups(tmp_path / "odd.jsonl", [group(p, *ANSWERS[: 3 + (i > 0)]) for i, p in enumerate(PROMPTS)])
    with pytest.raises(DataError, match=r"has between 3 and 4 answers to a prompt.*\n  an answer drawn twice counts twice"):
        main(settings(files, draws=str(tmp_path / "odd.jsonl")), Options(out=tmp_path / "odd", device="cpu"))
    with pytest.raises(DataError, match=r"best_of\.n = 16, and .* has 5 answers to a prompt"):
        main(settings(files, best_of={"n": 16, "simulated": "gold", "real": "gold"}), Options(out=tmp_path / "n", device="cpu"))


def test_prompts_of_another_world_are_refused(files, tmp_path):
    write_prompts(tmp_path / "prompts.jsonl", [Prompt.of("What is the capital of France?")])
    with pytest.raises(DataError, match=r"1 of 1 prompts of .* are not of this world"):
        main(settings(files, prompts=str(tmp_path / "prompts.jsonl")), Options(out=tmp_path / "run", device="cpu"))
