"""The page of a study: everything is on it, nothing dangerous is, and it is always the same."""

import base64
import hashlib
import re

import pytest

from prefloop.errors import ConfigError, NotInstalled
from prefloop.report.data import ROWS, ReportData
from prefloop.report.page import render
from prefloop.report.sections import SECTIONS
from prefloop.report.texts import words_of
from tests.report.example import NO_PLOTS, content, points, row, study
from tests.report.reading import Page

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "</div></main></body><h1>gone</h1>",
    "\"'><svg onload=alert(3)>",
    "</style><style>*{display:none}</style>",
    "<!-- never closed",
    "&lt;script&gt; &amp; &#60;",
    "<![CDATA[x]]>",
    "<a href=javascript:alert(4)>here</a>",
    "{words} %s $\\frac{1}{0}$",
]


@pytest.fixture(scope="module")
def whole() -> str:
    return render(study())


@pytest.fixture(scope="module")
def empty() -> str:
    return render(ReportData(title="Nothing yet"))


def test_every_figure_of_the_table_is_shown(whole: str):
    text = Page(whole).text
    for name in ("base", "sft", "best_of_n", "ppo", "ppo_ptx", "ppo_overoptimised"):
        assert name in text and words_of("en")[f"policy.{name}"] in text
    for gold in ("−0.84 [−0.94, −0.74]", "0.21 [0.11, 0.31]", "1.83 [1.73, 1.93]", "1.62 [1.52, 1.72]", "−1.11 [−1.21, −1.01]"):
        assert gold in text
    for kl in ("1.31 [0.81, 1.81]", " 0.00 ", "≤ 1.84", "2.51 [2.01, 3.01]", "1.92", "22.73"):
        assert kl in text
    assert "0.00 [−0.50, 0.50]" not in text  # the baseline is no distance from itself
    for length in ("22.1", "21.2", "20.3", "20.4", "19.5", "22.6"):
        assert length in text
    assert "Gold reward (n 300)" in text and "62.5% [56.2, 68.8]" in text
    assert "Skill: sums" in text and "43.8%" in text and "Skill: spelling (n 100)" in text and "87.5% [84.4, 90.6]" in text


def test_samples_that_differ_within_a_column_are_shown_in_its_cells():
    rows = [row("sft", 0.0, 0.0, 20.0), row("ppo", 1.0, 1.0, 20.0)]
    rows[1]["gold"]["n"] = 64
    text = Page(render(study(rows=rows, **NO_PLOTS))).text
    assert (
        "Gold reward (n 300)" in text and "[0.90, 1.10] · n 64" in text and "· n 300" not in text.partition("What was found")[0]
    )


def test_every_other_part_of_the_data_is_shown(whole: str):
    text = Page(whole).text
    expected = [
        "A small study", "Does it learn?", "5 min 18 s", "two cores", "prefloop demo --seed 0",
        "pretrain-stage unchanged, taken from before", "sft-stage 61 s", "ppo-stage 4 min 17 s",
        "2,001", "2,002", "2,003", "2,004", "2,005", "annotators: 13", "answers per prompt: 4",
        "gold reward of SFT: 0.21", "gold reward of PPO: 1.87", "KL of PPO to SFT (nats): 2.51",
        "PPO − SFT", "+1.66", "[1.41, 1.91]", "PPO − Best of n", "not separated", "−25.0", "below",
        "68.8% ", "[65.6, 71.9] · n 1,800", "75.0%", "81.2%", "n 1,801", "0.08",
        "55.0% 51.0% 401", "85.0% 73.0% 402", "0.15 59.0% 501", "1.25 91.0% 502",
        "Tell me about a fox.", "A fox found a lantern.", "The fox was sad.", "gold 1.23 · proxy 0.97", "gold −0.42 · proxy 0.11",
        "1.210", "0.970", "0.830", "0.985", "✓ taken", "Epoch 2 was taken", "The lowest validation loss was at epoch 1",
        "surprise (nats a token) (n 300) ", "different words, over all answers", "1.250 [1.188, 1.312] 50.0%",
        "few_reward 50.0% [43.8, 56.2] · 300 prompts, 5 seeds 0.688 [0.656, 0.719] 43.8% 56.2%", "reward − “prefers the longer”",
        "rankings.jsonl", "dropped 4: every answer tied", "four rankings taught nothing", "77a1ce02d9b8f013", "base-hash", "n = 16",
    ]  # fmt: skip
    missing = [part for part in expected if part not in text]
    assert missing == []


def test_every_metric_and_every_row_is_explained():
    of_all = study(rows=[row(name, 0.0, 0.0, 20.0) for name in ROWS], **NO_PLOTS)
    text, explained = Page(render(of_all)).text, [key for key in words_of("en") if key.startswith("glossary.")]
    assert [key for key in explained if words_of("en")[key].format(baseline="the SFT model") not in text] == []
    assert {row["name"] for row in content()["rows"]} <= {key.removeprefix("glossary.") for key in explained}


def test_a_part_that_was_not_measured_says_so_in_its_place(empty: str):
    page = Page(empty)
    sections = [attributes["id"] for attributes in page.named("section")]
    expected = ["answer", "table", "findings", *SECTIONS]
    expected.insert(expected.index("data"), "paired")
    assert sections == expected
    for key in ("table", "paired", *SECTIONS):
        if key == "glossary":
            continue
        part = empty.partition(f'id="{key}"')[2].partition("</section>")[0]
        assert "not measured" in part, key


def test_the_decision_comes_first_then_its_picture_then_the_table_and_the_paired_differences_are_folded(whole: str):
    order = ["Yes: better answers", "But in PPO", 'class="picture"', 'id="table"', 'id="findings"', 'class="plot"', 'id="paired"']
    page = render(study(curves={"ppo": points([0.0, 1.0, 0.5, 0.0], [0.0, 1.0, 2.0, 3.0])}))
    places = [page.index(part) for part in order]
    assert places == sorted(places)
    folded = page.partition('id="paired"')[2].partition("</section>")[0]
    n = len(study().paired) + len(study().reward_pairs)
    assert f"<details><summary>All {n} differences" in folded
    open_ones = 1 + 2  # PPO and best of n; few_reward and both rules of length
    assert f"{n} differences on the same prompts, of which {open_ones} are not separated" in folded


def test_the_headline_and_over_optimisation_stand_together(whole: str):
    first = Page(whole).text.partition("The policies side by side")[0]
    assert "shown on purpose: in PPO with few rankings, no KL price, gold reward peaked and fell" in first
    assert "But in" not in first  # PPO and PPO-ptx still rise
    peaked = points([0.0, 1.0, 0.5, 0.0], [0.0, 1.0, 2.0, 3.0])
    told = render(study(curves={"ppo": peaked, "ppo_ptx": points([0.0, 1.0], [0.0, 1.0])})).partition('id="table"')[0]
    assert "But in PPO, training went past the best point" in told and 'href="#frontier"' in told and "on purpose" not in told


def test_the_picture_draws_gold_of_every_policy_beside_the_baseline(whole: str):
    picture = whole.partition('class="picture"')[2].partition("</figure>")[0]
    assert picture.count("<li>") == 6 == picture.count('class="tick s-text"') and "the upright line is the SFT model" in picture
    assert "1.87 [1.77,\u00a01.97]" in picture
    assert 'class="picture"' not in render(study(rows=[row("sft", 0.0, 0.0, 20.0)], **NO_PLOTS))


def test_each_missing_figure_of_a_row_says_so():
    bare = render(study(rows=[{"name": "sft"}, {"name": "ppo"}], paired=[], curves={}, best_of_n=[]))
    table = bare.partition('id="table"')[2].partition("</section>")[0]
    assert table.count("not measured") == 5 + 6  # SFT's own win rate is the reference


def test_the_drawings_of_what_was_measured_are_there(whole: str):
    titles = [
        "Best of n: Proxy",
        "PPO: Proxy",
        "PPO-ptx: Proxy",
        "PPO with few rankings, no KL price: Proxy",
        "gold reward",
        "Calibration",
    ]
    assert all(f"<title>{title}" in whole for title in titles)
    assert whole.count('class="plot"') == 4 + 4 + 2 + 2  # distance, training, trust, epochs


def test_a_curve_without_a_metric_says_so_and_draws_the_rest():
    bare = [{"step": i, "proxy": float(i)} for i in range(3)]
    page = render(study(**{**NO_PLOTS, "curves": {"ppo": bare}}))
    assert "answer length (tokens): not measured" in page and "<title>proxy reward</title>" in page


@pytest.mark.parametrize("attack", HOSTILE)
def test_what_a_model_says_is_text_and_nothing_else(attack: str):
    harmless = Page(render(study(samples=[{"prompt": "P", "answers": [{"policy": "ppo", "text": "T"}]}], **NO_PLOTS)))
    attacked = Page(render(study(samples=[{"prompt": attack, "answers": [{"policy": "ppo", "text": attack}]}], **NO_PLOTS)))
    assert attacked.elements == harmless.elements
    assert attacked.text.count(attack) == 2
    assert attacked.open == []


def test_names_from_outside_are_text_too():
    attack = "<b onclick=x>$n"
    data = study(
        title=attack, subtitle=attack, machine=attack, command=attack, warnings=[attack],
        stages=[{"name": attack, "seconds": 1.0}],
        rows=[{**row("sft", 0.0, 0.0, 1.0), "name": attack, "skill": {attack: 0.5}}],
        paired=[{"a": attack, "b": "sft", "metric": attack, "mean": 1.0, "low": 0.5, "high": 2.0, "n_prompts": 3}],
        curves={attack: points([0.0, 1.0], [0.0, 1.0])},
        lineage=[{"name": attack, "hash": attack, "parents": [attack]}],
        data_reports=[{"name": attack, "lines": [attack]}],
        best_of_n=[], reward_model=None, sft_selection=[],
    )  # fmt: skip
    page = Page(render(data))
    assert page.named("b") and not any("onclick" in attributes for _, attributes in page.elements)
    assert page.open == [] and page.text.count(attack) > 12


def test_characters_that_hide_or_reorder_text_are_drawn_as_what_they_are():
    text = "a\u202eb\x00c\x1bd\u200be\x85"
    shown = render(study(samples=[{"prompt": "P", "answers": [{"policy": "ppo", "text": text}]}], **NO_PLOTS))
    assert "a⟨U+202E⟩b␀c␛d⟨U+200B⟩e⟨U+0085⟩" in shown
    assert "\u202e" not in shown and "\x00" not in shown


def test_the_page_asks_nothing_of_anybody(whole: str, empty: str):
    for page in map(Page, (whole, empty)):
        names = {name for name, _ in page.elements}
        assert not names & {"script", "link", "img", "iframe", "object", "embed", "form", "base", "video", "audio", "input"}
        attributes = {name for _, attributes in page.elements for name in attributes}
        assert not {name for name in attributes if name.startswith("on") or name in ("src", "style")}
        ids = page.all("id")
        assert len(ids) == len(set(ids))
        assert all(link.startswith("#") and link[1:] in ids for link in page.all("href"))
    assert "http://" not in whole and "https://" not in whole and "url(" not in re.sub(r"url\(#[\w-]+\)", "", whole)


def test_the_policy_of_the_page_admits_its_own_style_sheet_by_hash_and_nothing_else(whole: str):
    page = Page(whole)
    policy = next(m["content"] for m in page.named("meta") if m.get("http-equiv") == "Content-Security-Policy")
    style = re.findall(r"<style>(.*?)</style>", whole, flags=re.DOTALL)
    assert len(style) == 1
    digest = base64.b64encode(hashlib.sha256(style[0].encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_the_page_fits_phones_and_both_colour_schemes_and_stays_small(whole: str):
    assert '<meta name="viewport" content="width=device-width, initial-scale=1"/>' in whole
    assert "prefers-color-scheme: dark" in whole and "@media (max-width" in whole
    assert len(whole.encode()) < 200_000


def test_every_ink_of_the_plots_has_a_colour_in_the_style_sheet(whole: str):
    used = {name for attribute in Page(whole).all("class") for name in attribute.split() if re.match(r"[fs]-", name)}
    assert {"s-ppo", "f-ppo", "s-ppo_overoptimised", "s-best_of_n", "s-grid"} <= used
    assert [name for name in used if f".{name} {{" not in whole] == []


def test_a_hundred_long_samples_do_not_make_a_large_page():
    answers = [{"policy": name, "text": "x" * 100_000} for name in ("sft", "ppo")]
    page = render(study(samples=[{"prompt": f"P{i}", "answers": answers} for i in range(100)], **NO_PLOTS))
    assert len(page.encode()) < 600_000
    assert "gold not measured" not in page  # rewards nobody measured are left out
    assert "76 more prompts are in the run folder." in page and "… 96,000 more characters" in page


def test_equal_figures_give_equal_bytes(whole: str):
    assert render(study()) == whole


def test_the_page_is_whole_html_with_its_language(whole: str):
    page = Page(whole)
    assert whole.startswith("<!doctype html>") and page.open == []
    assert page.named("html") == [{"lang": "en"}]
    assert len(page.named("h1")) == 1


def test_the_chinese_page_says_the_same_in_chinese(whole: str):
    chinese = render(study(), lang="zh")
    assert Page(chinese).named("html") == [{"lang": "zh-Hans"}]
    assert "是：PPO 和 PPO-ptx 的回答优于 SFT 模型。" in chinese and "未测量" in render(ReportData(title="T"), lang="zh")
    english, translated = Page(whole), Page(chinese)
    assert [key for key, text in words_of("en").items() if len(text) > 30 and text in translated.text] == []
    assert [name for name, _ in translated.elements] == [name for name, _ in english.elements]


def test_an_unknown_language_is_refused():
    with pytest.raises(ConfigError, match="the page speaks en and zh, got lang = 'fr'"):
        render(ReportData(title="T"), lang="fr")


def test_without_matplotlib_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(NotInstalled, match=r"pip install 'prefloop\[report\]'"):
        render(study())
