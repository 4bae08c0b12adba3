"""Pages of run folders, whole and torn."""

import json
from pathlib import Path

import pytest

from prefloop.errors import ConfigError, DataError, RunError
from prefloop.report.pages import write_page, write_study
from prefloop.report.run_page import MOST_PLOTS, read_run, render_runs
from tests.report.example import NO_PLOTS, content, study
from tests.report.reading import Page


def run_folder(path: Path, *, without: tuple[str, ...] = (), lines: int = 5) -> Path:
    """A run as a method leaves it."""
    path.mkdir(parents=True)
    rows = [{"step": i, "objective/kl": 0.5 * i, "lr": 0.125, "note": "text", "flag": True} for i in range(lines)]
    samples = [{"step": 4, "prompt": "Say <hi>.", "answer": "<script>alert(1)</script>", "score": 0.75}]
    files = {
        "config.yaml": "rounds: 8\nmodel: runs/sft/model\n",
        "meta.json": json.dumps({"method": "ppo", "versions": {"torch": "2.13.0"}, "parents": {"model": "77a1ce02"}}),
        "metrics.jsonl": "".join(json.dumps(row) + "\n" for row in rows),
        "samples.jsonl": "".join(json.dumps(row) + "\n" for row in samples),
        "summary.json": json.dumps(
            {"episodes": 2048, "pair_accuracy": {"mean": 0.5, "low": 0.25, "high": 0.75, "n": 64}, "gold": None}
        ),
    }
    for name, text in files.items():
        if name not in without:
            (path / name).write_text(text, encoding="utf-8")
    return path


def page_of(*folders: Path, lang: str = "en") -> Page:
    return Page(render_runs([read_run(folder) for folder in folders], lang=lang))


def test_everything_a_run_left_is_on_its_page(tmp_path: Path):
    page = page_of(run_folder(tmp_path / "ppo-7"))
    expected = [
        "Run ppo-7", "method ppo", "episodes 2,048", "pair_accuracy 0.50 [0.25, 0.75], n 64", "gold not measured",
        "5 lines of metrics.jsonl, steps 0 to 4.", "objective/kl 0 2 0 2", "lr 0.125 0.125 0.125 0.125",
        "Say <hi>.", "<script>alert(1)</script>", "step 4 · score 0.75", "rounds: 8", "versions.torch 2.13.0", "parents.model 77a1ce02",
    ]  # fmt: skip
    assert [part for part in expected if part not in page.text] == []
    assert page.open == [] and not page.named("script") and page.all("style") == []


def test_a_metric_that_moves_is_drawn_and_a_constant_one_is_read(tmp_path: Path):
    page = page_of(run_folder(tmp_path / "run"))
    assert "objective/kl" in page.text
    assert len([attributes for attributes in page.named("svg") if attributes.get("class") == "plot"]) == 1


@pytest.mark.parametrize("missing", ["config.yaml", "meta.json", "metrics.jsonl", "samples.jsonl", "summary.json"])
def test_a_missing_file_is_named_and_the_rest_is_shown(tmp_path: Path, missing: str):
    page = page_of(run_folder(tmp_path / "run", without=(missing,)))
    assert missing in page.text.partition("Warnings")[2] and "not measured" in page.text
    assert ("rounds: 8" in page.text) == (missing != "config.yaml")


def test_a_torn_line_is_counted_and_the_others_are_read(tmp_path: Path):
    folder = run_folder(tmp_path / "run")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "objec')
    page = page_of(folder)
    assert "metrics.jsonl: unreadable lines: 1, the first is line 6." in page.text
    assert "5 lines of metrics.jsonl, steps 0 to 4." in page.text


def test_files_that_hold_something_else_do_not_stop_the_page(tmp_path: Path):
    folder = run_folder(tmp_path / "run")
    (folder / "summary.json").write_text("[1, 2]")
    (folder / "meta.json").write_text("{not json")
    (folder / "config.yaml").write_bytes(b"\xff\xfe")
    (folder / "metrics.jsonl").write_text('{"step": "one", "x": NaN}\n{"x": 1e400}\n[]\n')
    (folder / "samples.jsonl").write_text('{"prompt": ["a"], "answer": {"b": 1}, "score": "high"}\n')
    page = page_of(folder)
    for name in (
        "summary.json cannot be read: list",
        "meta.json cannot be read",
        "config.yaml cannot be read",
        "metrics.jsonl: unreadable lines: 1",
    ):
        assert name in page.text
    assert '["a"]' in page.text and '{"b": 1}' in page.text and "high" in page.text


def test_several_runs_share_their_plots_and_keep_their_names(tmp_path: Path):
    page = page_of(run_folder(tmp_path / "one"), run_folder(tmp_path / "two"))
    assert "2 runs" in page.text and "one: 5 lines" in page.text and "two: 5 lines" in page.text
    plots = [attributes for attributes in page.named("svg") if attributes.get("class") == "plot"]
    assert len(plots) == 1
    assert {"s-best_of_n", "s-ppo"} <= {name for value in page.all("class") for name in value.split()}


def test_a_long_run_with_many_metrics_stays_a_small_page_that_says_what_it_left_out(tmp_path: Path):
    folder = run_folder(tmp_path / "run")
    rows = [{"step": i, **{f"m{j}": i * j + i % 7 for j in range(MOST_PLOTS + 3)}} for i in range(2000)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = render_runs([read_run(folder)])
    assert len(text.encode()) < 600_000
    assert "One line in 8 is drawn. 3 more metrics are in the table only." in Page(text).text
    assert f"m{MOST_PLOTS + 2} " in Page(text).text


def test_the_page_of_a_run_is_the_same_twice_and_speaks_chinese(tmp_path: Path):
    folder = run_folder(tmp_path / "run")
    assert render_runs([read_run(folder)]) == render_runs([read_run(folder)])
    assert "运行 run" in page_of(folder, lang="zh").text


def test_the_chinese_page_of_a_run_names_its_figures_in_chinese_and_has_no_json(tmp_path: Path):
    folder = run_folder(tmp_path / "run")
    bins = [{"predicted": 0.6, "observed": 0.5, "n": 4}]
    (folder / "summary.json").write_text(
        json.dumps({"episodes": 64, "calibration": bins, "models": ["a", "b"], "empty": [], "done": True})
    )
    page = page_of(folder, lang="zh")
    for told in ("学习所用回答 episodes 64", "校准 calibration 1 行 预测 观察 样本 0.6 0.5 4", "模型 models a、b", "empty 无", "done 是",
                 "与参考模型的 KL（每个回答，纳特） objective/kl", "版本 · torch versions.torch 2.13.0"):  # fmt: skip
        assert told in page.text, told
    assert "[{" not in page.text and '{"' not in page.text
    assert "calibration 1 rows predicted observed sample 0.6 0.5 4" in page_of(folder).text


UNFINISHED = {"a": {"done": True}, "b": {"done": False}}


def test_an_unfinished_study_says_which_stages_are_missing_and_how_to_finish_it(tmp_path: Path):
    for name, state in UNFINISHED.items():
        (tmp_path / "seed-0" / name).mkdir(parents=True)
        (tmp_path / "seed-0" / name / "stage.json").write_text(json.dumps({"key": "x", "seconds": 3.0, **state}))
    with pytest.raises(
        DataError, match=r"(?s)1 of 2 stages are done, as far as can be told\n.*finish it: prefloop run STUDY\.yaml --out"
    ) as refused:
        write_page([tmp_path], tmp_path / "page.html")
    stages = [{"label": name, "seed": 0, "folder": f"seed-0/{name}"} for name in "abc"]
    (tmp_path / "study.json").write_text(json.dumps({"command": "prefloop run s.yaml --out here", "stages": stages}))
    with pytest.raises(DataError) as refused:
        write_page([tmp_path], tmp_path / "page.html")
    assert str(refused.value).splitlines()[1:] == [
        "  done       seed-0/a",
        "  broken off seed-0/b",
        "  missing    seed-0/c",
        "  finish it: prefloop run s.yaml --out here",
        f"  the page of one stage: prefloop report {tmp_path / 'seed-0' / 'a'}",
    ]
    assert "is a study that is not finished: 1 of 3 stages are done\n" in str(refused.value)


def test_a_folder_that_is_no_run_is_refused_with_what_would_be_one(tmp_path: Path):
    with pytest.raises(DataError, match="there is no run folder"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"is not a run folder\n  a run folder holds config\.yaml"):
        read_run(tmp_path)
    run_folder(tmp_path / "ppo-1")
    with pytest.raises(DataError, match="runs inside it: ppo-1"):
        read_run(tmp_path)


def test_a_study_leaves_its_page_and_the_figures_to_make_it_again(tmp_path: Path):
    page = write_study(study(**NO_PLOTS), tmp_path / "study")
    assert page == tmp_path / "study" / "report.html"
    again = write_page([tmp_path / "study"], tmp_path / "again.html")
    assert again.read_text(encoding="utf-8") == page.read_text(encoding="utf-8")
    assert "是：" in write_page([tmp_path / "study"], tmp_path / "zh.html", language="zh").read_text(encoding="utf-8")


def test_a_summary_alone_gives_a_page_of_what_it_holds(tmp_path: Path):
    whole = content()
    kept = {key: whole[key] for key in ("rows", "paired", "seconds")}
    summary = {
        **kept,
        "study": "demo",
        "seeds": [0],
        "reward_model": {"pair_accuracy": 0.7, "bayes_ceiling": 0.75, "per_seed": [0.7]},
    }
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    page = Page(write_page([tmp_path], tmp_path / "page.html").read_text(encoding="utf-8"))
    assert (
        "Yes: better answers" in page.text
        and "1.87 [1.77, 1.97]" in page.text
        and "70.0%" in page.text
        and "not measured" in page.text
    )


def test_damaged_figures_of_a_study_are_refused_by_name(tmp_path: Path):
    (tmp_path / "report.json").write_text('{"title": "T", "rows": [{"name": "sft", "gold": "high"}]}')
    with pytest.raises(DataError, match=r"report\.json does not hold the figures of a study\n  rows\.0\.gold"):
        write_page([tmp_path], tmp_path / "page.html")
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(DataError, match=r"report\.json does not hold"):
        write_page([tmp_path], tmp_path / "page.html")


def test_a_study_and_a_run_do_not_share_a_page_and_no_folder_gives_none(tmp_path: Path):
    write_study(study(**NO_PLOTS), tmp_path / "study")
    with pytest.raises(DataError, match="a page holds one study or any number of runs, got 2 folders"):
        write_page([tmp_path / "study", run_folder(tmp_path / "run")], tmp_path / "page.html")
    with pytest.raises(DataError, match="at least one run folder"):
        write_page([], tmp_path / "page.html")


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path):
    folder = run_folder(tmp_path / "run")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="could not be written"):
        write_page([folder], tmp_path / "file" / "page.html")
    out = write_page([folder], tmp_path / "new" / "page.html")
    with pytest.raises(ConfigError):
        write_page([folder], out, language="fr")
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>") and list(out.parent.iterdir()) == [out]
