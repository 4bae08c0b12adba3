"""The world as files: what a study starts from."""

import json

import pytest

from prefloop.config import Options
from prefloop.data.read import read_demonstrations, read_groups, read_prompts, read_text
from prefloop.data.write import write_groups
from prefloop.errors import ConfigError, DataError
from prefloop.world import World
from prefloop.world.stages import (
    AnnotateConfig,
    CorpusConfig,
    PromptsConfig,
    WorldConfig,
    main,
    write_corpus_file,
    write_prompt_file,
)
from tests.helpers import assert_close
from tests.world.helpers import groups_of

SIZES = {"corpus_lines": 50, "demonstrations": 12, "reward_prompts": 9, "policy_prompts": 7, "validation_prompts": 5}
SMALL = {**SIZES, "held_out_prompts": 6}
PARTS = ("reward", "policy", "validation", "held_out")


def ids(path) -> list[str]:
    return [prompt.id for prompt in read_prompts(path).records]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_files_hold_what_was_asked_for(tmp_path, language):
    summary = main(WorldConfig(**SMALL, language=language), Options(out=tmp_path))
    assert len(read_text(tmp_path / "corpus.txt").records) == 50
    assert len(read_demonstrations(tmp_path / "demonstrations.jsonl").records) == 12
    assert {part: len(ids(tmp_path / f"{part}_prompts.jsonl")) for part in PARTS} == {
        "reward": 9, "policy": 7, "validation": 5, "held_out": 6,
    }  # fmt: skip
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8")) == summary
    assert summary["language"] == language


def test_the_four_uses_of_prompts_share_none(tmp_path):
    main(WorldConfig(**SMALL), Options(out=tmp_path))
    everything = [one for part in PARTS for one in ids(tmp_path / f"{part}_prompts.jsonl")]
    assert len(set(everything)) == len(everything) == 9 + 7 + 5 + 6


def test_the_seed_decides_everything_and_nothing_else_does(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        main(WorldConfig(**SMALL, seed=seed), Options(out=tmp_path / name))
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)
    differing = [name for name in files if (tmp_path / "a" / name).read_bytes() != (tmp_path / "c" / name).read_bytes()]
    assert differing == [name for name in files if name != "summary.json"]


@pytest.fixture
def answers(tmp_path):
    write_groups(tmp_path / "answers.jsonl", groups_of(World(), 12, 4))
    return tmp_path / "answers.jsonl"


def test_every_group_gets_a_ranking_and_the_summary_counts_them(tmp_path, answers):
    summary = main(AnnotateConfig(data=str(answers), n=10), Options(out=tmp_path / "out"))
    groups = read_groups(tmp_path / "out" / "rankings.jsonl").records
    assert summary["groups"] == summary["rankings"] == 10
    assert summary["pairs"] == sum(len(group.rankings[0].pairs()) for group in groups)
    assert len(groups) <= 10  # a ranking in which all are tied orders nothing, and is set aside when it is read


def test_the_ceiling_is_that_of_the_labels_that_were_asked_for(tmp_path, answers):
    """Fewer flips raise it; what the world says of other labels is another number."""
    noisy = main(AnnotateConfig(data=str(answers)), Options(out=tmp_path / "noisy"))
    honest = main(AnnotateConfig(data=str(answers), flip=0.0, annotators=2), Options(out=tmp_path / "honest"))
    ranked = read_groups(tmp_path / "honest" / "rankings.jsonl", allow_unranked=True).records
    assert_close(honest["bayes_ceiling"], World().bayes_accuracy(ranked, annotators=2, flip=0.0))
    assert honest["bayes_ceiling"] > noisy["bayes_ceiling"]
    assert {ranking.annotator for group in ranked for ranking in group.rankings} <= {f"sim:{n}" for n in range(13)}


def test_annotating_is_repeatable(tmp_path, answers):
    for name in ("a", "b"):
        main(AnnotateConfig(data=str(answers), seed=5), Options(out=tmp_path / name))
    assert (tmp_path / "a" / "rankings.jsonl").read_bytes() == (tmp_path / "b" / "rankings.jsonl").read_bytes()


def test_prompts_of_another_world_cannot_be_judged(tmp_path):
    (tmp_path / "foreign.jsonl").write_text('{"prompt": "hello", "completions": ["a", "b"], "ranks": [1, 2]}\n')
    with pytest.raises(DataError):
        main(AnnotateConfig(data=str(tmp_path / "foreign.jsonl")), Options(out=tmp_path / "out"))


def test_there_is_one_version(tmp_path):
    with pytest.raises(ConfigError, match="the embedded world has no version 2; there is 1"):
        main(WorldConfig(version=2), Options(out=tmp_path))


def test_single_files_say_what_they_hold(tmp_path):
    assert write_prompt_file(PromptsConfig(n=3, split="held_out"), tmp_path / "new" / "p.jsonl").startswith("wrote 3 held_out")
    assert write_corpus_file(CorpusConfig(lines=4), tmp_path / "new" / "c.txt").startswith("wrote 4 documents")
    assert ids(tmp_path / "new" / "p.jsonl") == [p.id for p in World().prompts(3, split="held_out", seed=0)]
    assert (tmp_path / "new" / "c.txt").read_text(encoding="utf-8").splitlines() == World().corpus(4, seed=0)
