"""Records to files and back, pairs, and splits: identity and invariance, by property where inputs are structured."""

import errno
import gzip
import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefloop.data.read import read_demonstrations, read_groups, read_prompts
from prefloop.data.turns import split_key
from prefloop.data.write import as_pairs, split_by_prompt, write_demonstrations, write_groups, write_preferences, write_prompts
from prefloop.errors import DataError, RunError
from prefloop.records import Completion, Demonstration, Group, Image, Message, Prompt, Ranking, Rating

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
SPOKEN = TEXT.filter(str.strip)
MESSAGES = st.lists(
    st.builds(Message, role=st.sampled_from(["system", "user", "assistant"]), content=SPOKEN), min_size=1, max_size=3
)
PROMPTS = st.builds(Prompt, messages=MESSAGES.map(tuple), origin=TEXT, tags=st.lists(TEXT, max_size=2).map(tuple))


@st.composite
def groups(draw) -> Group:
    """A prompt, up to six answers of which one may be a picture, and up to three rankings with ties, gaps and rejects."""
    prompt = draw(PROMPTS)
    texts = draw(st.lists(TEXT, min_size=2, max_size=6, unique=True))
    completions = [Completion.of(prompt, text, source=draw(TEXT)) for text in texts]
    if draw(st.booleans()):
        completions[0] = Completion(prompt_id=prompt.id, content=Image(uri="a.png", sha256="0"), source="x")
    ids = [completion.id for completion in completions]
    rankings = [draw(ranking(prompt, ids)) for _ in range(draw(st.integers(0, 3)))]
    values = st.floats(allow_nan=False, allow_infinity=False)
    ratings = [Rating(completion_id=ids[0], question=draw(TEXT), scale=(0, 1), value=draw(values), annotator="a")]
    return Group(prompt=prompt, completions=tuple(completions), rankings=tuple(rankings), ratings=tuple(ratings))


@st.composite
def ranking(draw, prompt: Prompt, ids: list[str]) -> Ranking:
    """Each answer in a tier, unusable, or passed over."""
    place = {completion: draw(st.sampled_from([0, 1, 2, "unusable", None])) for completion in ids}
    tiers = [tuple(c for c in ids if place[c] == tier) for tier in range(3)]
    return Ranking(
        prompt_id=prompt.id,
        tiers=tuple(tier for tier in tiers if tier),
        unusable=tuple(c for c in ids if place[c] == "unusable"),
        shown=tuple(draw(st.permutations(ids))),
        annotator=draw(TEXT),
        seconds=draw(st.none() | st.floats(0, 1e6)),
    )


@st.composite
def demonstrations(draw) -> Demonstration:
    prompt = draw(PROMPTS)
    return Demonstration(prompt=prompt, completion=Completion.of(prompt, draw(TEXT)))


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
@settings(max_examples=30)
@given(written=st.lists(groups(), min_size=1, max_size=4))
def test_groups_are_read_as_they_were_written(tmp_path_factory, name, written):
    path = tmp_path_factory.mktemp("groups") / name
    assert write_groups(path, written) == len(written)
    reading = read_groups(path, allow_unranked=True)
    assert reading.records == written
    assert reading.report.n_dropped == 0


@settings(max_examples=30)
@given(written=st.lists(PROMPTS, min_size=1, max_size=4, unique_by=lambda prompt: prompt.id))
def test_prompts_are_read_as_they_were_written(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("prompts") / "x.jsonl"
    write_prompts(path, written)
    assert read_prompts(path).records == written


@settings(max_examples=30)
@given(written=st.lists(demonstrations(), min_size=1, max_size=4))
def test_demonstrations_are_read_as_they_were_written(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("demonstrations") / "x.jsonl"
    write_demonstrations(path, written)
    assert read_demonstrations(path).records == written


def small_group(prompt: str = "q", n: int = 2) -> Group:
    asked = Prompt.of(prompt)
    completions = tuple(Completion.of(asked, str(k)) for k in range(n))
    ids = tuple(completion.id for completion in completions)
    order = Ranking(prompt_id=asked.id, tiers=tuple((c,) for c in ids), shown=ids, annotator="a")
    return Group(prompt=asked, completions=completions, rankings=(order,))


def test_a_line_keeps_line_breaks_of_every_kind_inside_the_text(tmp_path):
    group = small_group("a\r\nb\u2028c\x85d\x00e")
    write_groups(tmp_path / "x.jsonl", [group])
    assert (tmp_path / "x.jsonl").read_bytes().count(b"\n") == 1
    assert read_groups(tmp_path / "x.jsonl").records == [group]


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
def test_equal_records_make_equal_bytes(tmp_path, name):
    for folder in ("a", "b"):
        write_groups(tmp_path / folder / name, [small_group()])
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_compressed_file_is_compressed(tmp_path):
    write_groups(tmp_path / "x.jsonl.gz", [small_group()])
    assert json.loads(gzip.decompress((tmp_path / "x.jsonl.gz").read_bytes()))["format_version"] == 1


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.jsonl"
    write_groups(path, [small_group()])
    before = path.read_bytes()

    def groups_until_the_power_fails():
        yield small_group("new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_groups(path, groups_until_the_power_fails())
    assert [p.name for p in tmp_path.iterdir()] == ["x.jsonl"] and path.read_bytes() == before


def test_a_full_disk_leaves_the_old_file_and_is_a_failure_of_the_run(tmp_path, monkeypatch):
    path = tmp_path / "x.jsonl"
    write_groups(path, [small_group()])
    before = path.read_bytes()

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="the disk is full") as failed:
        write_groups(path, [small_group("new")])
    assert failed.value.exit_code == 1
    assert [p.name for p in tmp_path.iterdir()] == ["x.jsonl"] and path.read_bytes() == before


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"x\.jsonl cannot be written"):
        write_groups(tmp_path / "file" / "x.jsonl", [small_group()])
    with pytest.raises(DataError, match=r"must end in \.jsonl or \.jsonl\.gz"):
        write_groups(tmp_path / "x.parquet", [small_group()])


# --- pairs ------------------------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.lists(groups(), max_size=3))
def test_pairs_say_what_the_rankings_said_and_no_more(written):
    pairs = as_pairs(written)
    said = [(g.prompt.id, r.annotator, pair) for g in written for r in g.rankings for pair in r.pairs()]
    assert [(p.prompt.id, p.rankings[0].annotator, p.rankings[0].pairs()[0]) for p in pairs] == said
    usable = [(g.prompt.id, r.annotator, pair) for g in written for r in g.rankings for pair in r.pairs(with_unusable=False)]
    kept = [(p, p.rankings[0]) for p in pairs]
    assert [(p.prompt.id, r.annotator, pair) for p, r in kept for pair in r.pairs(with_unusable=False)] == usable
    assert all(len(p.completions) == 2 and len(p.rankings) == 1 for p in pairs)


def test_nine_answers_in_order_make_thirty_six_pairs():
    assert len(as_pairs([small_group(n=9)])) == 36


def test_pairs_for_other_trainers_are_conversations(tmp_path):
    asked = Prompt(messages=(Message(role="system", content="s"), Message(role="user", content="q")))
    a, b, c = (Completion.of(asked, text) for text in "abc")
    tied = Ranking(prompt_id=asked.id, tiers=((a.id, b.id),), unusable=(c.id,), shown=(a.id, b.id, c.id), annotator="x")
    assert write_preferences(tmp_path / "x.jsonl", [Group(prompt=asked, completions=(a, b, c), rankings=(tied,))]) == 2
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert [(line["chosen"][0]["content"], line["rejected"][0]["content"]) for line in lines] == [("a", "c"), ("b", "c")]
    assert lines[0]["prompt"] == [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    assert lines[0]["chosen"][0]["role"] == "assistant"


# --- splits -----------------------------------------------------------------------------------------------------------------

FEW_WORDS = st.sampled_from(["p", "q", "r", "s", "t"])


@st.composite
def prompts_of_few_words(draw) -> Prompt:
    """Conversations that often begin alike, some under a tree."""
    words = draw(st.lists(FEW_WORDS, min_size=1, max_size=3))
    system = [Message(role="system", content=draw(FEW_WORDS))] if draw(st.booleans()) else []
    turns = [Message(role=("user", "assistant")[at % 2], content=word) for at, word in enumerate(words)]
    tags = (f"tree:{words[0]}",) if words[0] in "pq" else ()
    return Prompt(messages=(*system, *turns), tags=("topic:x", *tags))


@settings(max_examples=60)
@given(st.lists(prompts_of_few_words(), max_size=12), st.floats(0, 0.99), st.integers(0, 5))
def test_no_prompt_no_first_turn_and_no_tree_is_on_both_sides(records, held_out, seed):
    train, out = split_by_prompt(records, held_out=held_out, seed=seed)
    sides = {prompt.id: side for side in (train, out) for prompt in side}
    assert [[p for p in records if sides[p.id] is side] for side in (train, out)] == [train, out]  # all of them, in order
    for of in (
        lambda p: p.id,
        split_key,
        lambda p: next(m.content for m in p.messages if m.role == "user"),
        lambda p: p.tags[1:],
    ):
        assert {of(p) for p in train} & {of(p) for p in out} <= {()}


@settings(max_examples=60)
@given(st.lists(prompts_of_few_words(), max_size=8), st.lists(prompts_of_few_words(), max_size=8), st.randoms())
def test_more_records_in_any_order_never_move_a_prompt(records, more, random):
    shuffled = [*records, *more]
    random.shuffle(shuffled)
    _, before = split_by_prompt(records, held_out=0.5, seed=0)
    _, after = split_by_prompt(shuffled, held_out=0.5, seed=0)
    old = {prompt.id for prompt in records}
    assert {prompt.id for prompt in before} == {prompt.id for prompt in after} & old


def test_a_larger_share_holds_out_more_and_gives_nothing_back():
    records = [Prompt.of(str(n)) for n in range(200)]
    few, many = ({p.id for p in split_by_prompt(records, held_out=share, seed=0)[1]} for share in (0.1, 0.3))
    assert few < many


def test_the_share_held_out_is_about_the_share_asked_for():
    records = [Prompt.of(str(n)) for n in range(1000)]
    for seed in range(3):
        n = len(split_by_prompt(records, held_out=0.2, seed=seed)[1])
        assert abs(n - 200) < 4 * (1000 * 0.2 * 0.8) ** 0.5  # four standard deviations of a binomial


def test_seeds_choose_differently_and_the_ends_are_exact():
    records = [Prompt.of(str(n)) for n in range(50)]
    assert split_by_prompt(records, held_out=0.5, seed=0) != split_by_prompt(records, held_out=0.5, seed=1)
    assert split_by_prompt(records, held_out=0, seed=0) == (records, [])
    for share in (-0.1, 1.0):
        with pytest.raises(DataError, match="at least 0 and below 1"):
            split_by_prompt(records, held_out=share, seed=0)


def test_every_kind_of_record_is_split_by_its_prompt():
    group = small_group("q")
    demonstration = Demonstration(prompt=group.prompt, completion=group.completions[0])
    for seed in range(8):
        sides = [bool(split_by_prompt([record], held_out=0.5, seed=seed)[0]) for record in (group, demonstration, group.prompt)]
        assert len(set(sides)) == 1


def test_a_prompt_in_two_trees_is_refused_because_no_split_could_keep_both():
    twice = [Prompt.of("q", tags=("tree:1",)), Prompt.of("q", tags=("tree:2",))]
    with pytest.raises(DataError, match="belongs to 2 trees: tree:1, tree:2\n"):
        split_by_prompt(twice, held_out=0.5, seed=0)
    train, out = split_by_prompt(twice, held_out=0.5, seed=0, key=lambda prompt: prompt.text)
    assert not train or not out
