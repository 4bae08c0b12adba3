"""Studies that compare with something else than SFT, have rows of their own, or lack what a page usually stands on."""

from typing import Any

import pytest

from prefloop.report.data import ReportData, row_of
from prefloop.report.findings import findings, headline
from prefloop.report.page import render
from prefloop.report.texts import words_of
from tests.report.example import NO_PLOTS, figure, pair, points, row, study
from tests.report.reading import Page

EN = words_of("en")
LEARNED = {"a": "ppo_lexicon", "b": "ppo_learned"}


def stories(**changes: Any) -> ReportData:
    """The shape of configs/stories-sentiment.yaml: everything against the base model, no row called sft or ppo."""
    rows = [
        row("base", 0.25, 0.0, 60.0),
        row("best_of_n", 0.75, 1.84, 61.0),
        row("ppo_lexicon", 2.25, 3.5, 64.0),
        row("ppo_learned", 1.25, 2.5, 64.0),
    ]
    paired = [
        pair("best_of_n", "base", 0.5),
        pair("ppo_lexicon", "base", 2.0),
        pair("ppo_learned", "base", 1.0),
        pair("ppo_lexicon", "ppo_learned", 1.0),
    ]
    of_base = {"baseline": "base", "rows": rows, "paired": paired, "curves": {}, "samples": [], "sft_selection": []}
    return study(**{**NO_PLOTS, **of_base, "reward_pairs": [], "rewards": [], **changes})


def first_screen(page: str) -> str:
    """Text of the answer and of the table below it."""
    return Page("<section" + page.partition("<section")[2].partition("<nav")[0]).text


def sentences(data: ReportData) -> list[str]:
    return [finding.text for finding in findings(data, EN)]


def test_the_headline_is_about_the_baseline_the_study_chose_in_both_languages():
    assert headline(stories(), EN) == ("yes", "Yes: better answers than the base model, from ppo_lexicon and ppo_learned.")
    assert headline(stories(), words_of("zh")).text == "是：ppo_lexicon 和 ppo_learned 的回答优于基座模型。"
    worse = stories(paired=[pair("ppo_lexicon", "base", -1.0)])
    assert headline(worse, EN).text == "No: worse answers than the base model, from ppo_lexicon."
    none = stories(paired=[])
    assert (
        headline(none, EN).text
        == "Not measured: there is no paired comparison of ppo_lexicon and ppo_learned with the base model."
    )


def test_a_baseline_of_any_name_is_called_by_it():
    rows = [row("round_1", 1.0, 0.0, 20.0), row("sft", 0.0, 2.0, 20.0), row("round_2", 2.0, 1.0, 20.0)]
    data = stories(baseline="round_1", rows=rows, paired=[pair("round_2", "round_1", 1.0), pair("sft", "round_1", -1.0)])
    assert headline(data, EN) == ("yes", "Yes: better answers than round_1, from round_2.")  # SFT came before it: not judged
    assert "Wins against round_1" in first_screen(render(data))


def test_every_pair_that_was_judged_is_told_against_the_right_side():
    told = sentences(stories())
    starts = [
        "ppo_lexicon is above Base model in gold reward: +2.00",
        "ppo_learned is above Base model in gold reward: +1.00",
        "Best of n is above Base model in gold reward: +0.50",
        "ppo_lexicon is above ppo_learned in gold reward: +1.00",
    ]
    assert [text.partition(" [")[0] for text in told[:4]] == starts
    assert "KL 3.50 against 0.00 nats, length 64.0 against 60.0 tokens" in told[0]


def test_the_table_is_against_the_baseline_and_sft_is_nowhere_on_the_first_screen():
    page = first_screen(render(stories()))
    assert "Wins against base (n 300) KL to base (n 300)" in page
    assert "Base model base 0.25 [0.15, 0.35] reference 0.00" in page
    assert "SFT" not in page and "PPO with few rankings, no KL price" not in page
    chinese = first_screen(render(stories(), lang="zh"))
    assert "对 基座 胜率" in chinese and "与 基座 的 KL" in chinese and "SFT" not in chinese


def test_the_loop_and_the_glossary_speak_of_the_study_there_was():
    page = Page(render(stories())).text
    assert "gold reward of base: 0.25" in page and "gold reward of ppo_lexicon: 2.25" in page
    assert "KL of ppo_lexicon to base (nats): 3.50" in page
    assert EN["glossary.base"] in page and EN["glossary.sft"] not in page and EN["glossary.ppo"] not in page
    assert "prefers this policy’s answer to that of the base model" in page


def test_over_optimisation_is_asked_of_every_policy_where_no_run_was_meant_to_show_it():
    curves = {"ppo_lexicon": points([0.0, 1.0, 2.0], [0.0, 1.0, 2.0]), "ppo_learned": points([0.0, 2.0, 1.0], [0.0, 1.0, 2.0])}
    told = sentences(stories(curves=curves))
    assert any(text.startswith("No over-optimisation seen in ppo_lexicon") for text in told)
    assert any(text.startswith("Over-optimisation, in ppo_learned: gold reward peaks") for text in told)
    assert not any("PPO with few rankings, no KL price" in text for text in told)


def test_skills_are_told_against_the_baseline_where_there_is_no_ptx_to_compare():
    told = sentences(stories(paired=[pair("ppo_learned", "base", -0.25, 0.125, "skill/sums")]))
    assert any(text.startswith("ppo_learned is below Base model in skill “sums”: −25.0") for text in told)


def test_best_of_n_may_have_another_name():
    rows = [row("base", 0.25, 0.0, 60.0), row("bo8", 0.75, 1.84, 61.0), row("dpo", 1.25, 2.5, 64.0)]
    data = stories(chooser="bo8", rows=rows, paired=[pair("bo8", "base", 0.5), pair("dpo", "base", 1.0)])
    assert headline(data, EN).text == "Yes: better answers than the base model, from DPO."
    assert "≤ 1.84" in first_screen(render(data)) and "≤ 2.50" not in first_screen(render(data))


def test_points_of_a_sweep_are_compared_with_the_baseline_of_their_own_point():
    rows = [row(name, 0.0, 0.0, 20.0) for name in ("sft@sft.lr=1", "ppo@sft.lr=1", "sft@sft.lr=2", "ppo@sft.lr=2")]
    paired = [pair("ppo@sft.lr=1", "sft@sft.lr=1", 1.0), pair("ppo@sft.lr=2", "sft@sft.lr=2", 1.0)]
    data = stories(baseline="sft", rows=rows, paired=paired)
    assert headline(data, EN).text == "Yes: better answers than the SFT model, from PPO (sft.lr=1) and PPO (sft.lr=2)."
    assert first_screen(render(data)).count("reference") == 2


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rows": [], "paired": []}, "Nothing was compared: this study has measured no policy and judged no reward model."),
        ({"rows": [row("base", 0.25, 0.0, 60.0)], "paired": []}, "Nothing was compared: only one policy was measured."),
        (
            {"rows": [row("base", 0.25, 0.0, 60.0), row("best_of_n", 0.75, 1.84, 61.0)], "paired": []},
            "Nothing was compared: no policy was trained to be better than the base model.",
        ),
        (
            {"rows": [{"name": "base", "kl": 0.0}, {"name": "dpo", "kl": 1.0, "proxy": 2.0}], "paired": [pair("dpo", "base", 1.0, 0.25, "proxy")]},
            "Not judged: gold reward was not measured, so nothing here says whether the answers of DPO are better than those of the base model.",
        ),
    ],
)  # fmt: skip
def test_a_study_that_lacks_something_says_what(changes: dict[str, Any], told: str):
    data = stories(**changes)
    assert headline(data, EN) == ("missing", told)
    page = Page(render(data))
    assert told in page.text and page.open == []
    assert "How far the reward model can be trusted: not measured." in page.text
    assert render(data, lang="zh")


def test_answers_without_gold_show_the_score_there_is():
    answers = [{"policy": "dpo", "text": "A fox.", "proxy": 0.5}, {"policy": "base", "text": "A dog."}]
    page = Page(render(stories(samples=[{"prompt": "Tell me.", "answers": answers}]))).text
    assert "A fox. proxy 0.50" in page and "A dog. not measured" in page


def test_a_row_of_summary_json_joins_its_numbers_with_their_intervals():
    interval = {"mean": 1.5, "low": 1.0, "high": 2.0, "n_prompts": 300, "n_seeds": 1, "n": 300}
    told = {
        "name": "dpo", "gold": figure(1.0), "win_vs_base": figure(0.75), "kl": 1.5, "kl_interval": interval, "length": 20.0,
        "length_interval": None, "proxy": None, "proxy_interval": None, "finished": 1.0, "skill": {"sums": 0.5},
        "skill_interval": {"sums": {**interval, "mean": 0.5, "low": 0.25, "high": 0.75}}, "fluency": {},
    }  # fmt: skip
    data = ReportData.model_validate({"title": "T", "baseline": "base", "rows": [row_of(told)]})
    (shown,) = data.rows
    assert shown.win and shown.win.mean == 0.75
    assert shown.kl and (shown.kl.mean, shown.kl.low, shown.kl.high, shown.kl.n) == (1.5, 1.0, 2.0, 300)
    assert shown.length and shown.length.mean == 20.0 and not shown.length.has_interval
    assert shown.proxy is None
    assert shown.skill["sums"] and shown.skill["sums"].low == 0.25


def test_what_a_stage_was_made_from_stands_beside_it():
    lineage = [{"name": "base", "hash": "0123"}, {"name": "reward", "hash": "4567", "parents": ["base", "rankings"]}]
    page = Page(render(stories(lineage=lineage))).text
    assert "Stage Hash Made from base 0123 – reward 4567 base, rankings" in page
