"""Records: frozen, JSON in and out, identified by what they say; the rules of rankings."""

import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from prefloop.records import (
    FORMAT_VERSION,
    Completion,
    Demonstration,
    Group,
    Image,
    Message,
    Prompt,
    Ranking,
    Rating,
    Snapshot,
    Text,
    content_id,
)

text = st.text(st.characters(blacklist_categories=["Cs"]), max_size=20)
names = st.text("abcdefgh", min_size=1, max_size=3)
messages = st.builds(Message, role=st.sampled_from(["system", "user", "assistant"]), content=text)
prompts = st.builds(Prompt, messages=st.lists(messages, min_size=1, max_size=3).map(tuple), origin=text)


@st.composite
def rankings(draw, prompt_id: str = "p") -> Ranking:
    """Up to six answers: some in tiers, some unusable, some shown and placed nowhere."""
    shown = draw(st.lists(names, unique=True, min_size=1, max_size=6))
    place = {name: draw(st.sampled_from([0, 1, 2, "unusable", "nowhere"])) for name in shown}
    tiers = [tuple(name for name in shown if place[name] == tier) for tier in range(3)]
    return Ranking(
        prompt_id=prompt_id, tiers=tuple(tier for tier in tiers if tier), shown=tuple(shown), annotator=draw(names),
        unusable=tuple(name for name in shown if place[name] == "unusable"),
        seconds=draw(st.none() | st.floats(0, 1e6)), supersedes=draw(st.just("") | names),
    )  # fmt: skip


@st.composite
def groups(draw) -> Group:
    prompt = draw(prompts)
    texts = draw(st.lists(text, unique=True, min_size=1, max_size=4))
    completions = tuple(Completion.of(prompt, said, source=draw(names)) for said in texts)
    tiers = tuple((completion.id,) for completion in completions)
    ranking = Ranking(prompt_id=prompt.id, tiers=tiers, shown=tuple(c.id for c in completions), annotator=draw(names))
    rating = Rating(
        completion_id=completions[0].id, question="overall", scale=(1, 7), value=draw(st.floats(1, 7)), annotator="ada"
    )
    return Group(prompt=prompt, completions=completions, rankings=(ranking,), ratings=(rating,))


def again(record: BaseModel) -> BaseModel:
    """A record after a trip through a line of JSON."""
    return type(record).model_validate(json.loads(json.dumps(record.model_dump(mode="json"))))


@given(groups())
def test_a_line_of_json_gives_back_the_group_it_was_made_from(group):
    assert again(group) == group


@given(rankings())
def test_and_the_ranking(ranking):
    assert again(ranking) == ranking


@given(prompts, text)
def test_and_everything_else(prompt, said):
    completion = Completion.of(prompt, said)
    picture = Completion(prompt_id=prompt.id, content=Image(uri="file.png", sha256="0"))
    for record in (prompt, completion, picture, Demonstration(prompt=prompt, completion=completion)):
        assert again(record) == record


@given(prompts, prompts)
def test_equal_words_have_equal_ids_and_different_words_different_ones(a, b):
    words = [[(message.role, message.content) for message in prompt.messages] for prompt in (a, b)]
    assert (a.id == b.id) == (words[0] == words[1])


@given(prompts, text)
def test_where_a_prompt_comes_from_does_not_change_what_it_is(prompt, origin):
    assert Prompt(messages=prompt.messages, origin=origin, tags=("tree:1",)).id == prompt.id


def test_an_id_is_the_hash_of_what_a_record_says_unless_one_is_given():
    completion = Completion.of(Prompt.of("hello"), "hi")
    said = {"prompt_id": completion.prompt_id, "content": {"type": "text", "text": "hi"}, "source": ""}
    assert completion.id == content_id(said)
    assert len(completion.id) == 16
    assert Completion(id="mine", prompt_id="p", content=Text(text="hi")).id == "mine"
    assert Completion.of(Prompt.of("hello"), "hi", source="sim:1").id != completion.id


@given(st.dictionaries(names, st.integers(), min_size=2, max_size=4))
def test_the_order_of_keys_does_not_change_an_id(said):
    assert content_id(dict(reversed(said.items()))) == content_id(said)


@given(rankings())
def test_pairs_are_those_of_different_places_each_once_better_one_first(ranking):
    place, pairs = ranking.places(), ranking.pairs()
    assert len(pairs) == len(set(pairs))
    assert all(place[better] < place[worse] for better, worse in pairs)
    sizes = [*map(len, ranking.tiers), len(ranking.unusable)]
    assert len(pairs) == (sum(sizes) ** 2 - sum(size**2 for size in sizes)) // 2


@given(rankings())
def test_the_order_is_transitive_and_nobody_beats_itself(ranking):
    pairs = set(ranking.pairs())
    assert all((a, d) in pairs for a, b in pairs for c, d in pairs if b == c)
    assert all(a != b and (b, a) not in pairs for a, b in pairs)


@given(rankings())
def test_unusable_answers_share_the_place_after_the_last_or_have_none(ranking):
    place = ranking.places()
    assert {place[name] for name in ranking.unusable} <= {len(ranking.tiers)}
    assert ranking.places(with_unusable=False).keys() == place.keys() - set(ranking.unusable)
    assert all(place[name] == tier for tier, members in enumerate(ranking.tiers) for name in members)
    unplaced = set(ranking.shown) - place.keys()
    assert not any(name in pair for pair in ranking.pairs() for name in unplaced)


def refused(**changes) -> str:
    good = {"prompt_id": "p", "tiers": (("a", "b"), ("c",)), "unusable": ("d",), "shown": tuple("abcde"), "annotator": "ada"}
    Ranking(**good)
    with pytest.raises(ValidationError) as error:
        Ranking(**{**good, **changes})
    return str(error.value)


def test_a_ranking_places_each_answer_once_and_only_answers_that_were_shown():
    assert "places b twice; a completion belongs to one tier" in refused(tiers=(("a", "b"), ("b",)))
    assert "places d twice" in refused(tiers=(("a",), ("d",)))  # it is unusable as well
    told = refused(tiers=(("a", "x"),))
    assert "places x, never shown on that screen" in told and "shown:  a, b, c, d, e" in told and "placed: a, x, d" in told
    assert "has an empty tier; leave it out" in refused(tiers=(("a",), ()))


@given(rankings(), st.data())
def test_whatever_the_ranking_one_answer_more_than_once_is_refused(ranking, data):
    assume(ranking.tiers)
    name = data.draw(st.sampled_from([name for tier in ranking.tiers for name in tier]))
    with pytest.raises(ValidationError, match="twice"):
        Ranking(**{**ranking.model_dump(exclude={"id"}), "tiers": (*ranking.tiers, (name,))})


def test_unknown_fields_are_refused_and_records_are_frozen():
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Message.model_validate({"role": "user", "content": "hi", "mood": "good"})
    with pytest.raises(ValidationError, match="frozen"):
        Message(role="user", content="hi").content = "ho"  # pyright: ignore[reportAttributeAccessIssue]


def test_a_group_holds_what_belongs_together():
    prompt = Prompt.of("hello")
    one, other = Completion.of(prompt, "hi"), Completion.of(prompt, "ho")
    ranking = Ranking(prompt_id=prompt.id, tiers=((one.id,), (other.id,)), shown=(one.id, other.id), annotator="ada")
    rating = Rating(completion_id=other.id, question="overall", scale=(1, 7), value=3, annotator="ada")
    Group(prompt=prompt, completions=(one, other), rankings=(ranking,), ratings=(rating,))
    with pytest.raises(ValidationError, match=f"was shown {other.id}, which is not among the completions"):
        Group(prompt=prompt, completions=(one,), rankings=(ranking,))
    with pytest.raises(ValidationError, match=f"is of completion {other.id}, not of this line"):
        Group(prompt=prompt, completions=(one,), ratings=(rating,))
    with pytest.raises(ValidationError, match=f"format_version {FORMAT_VERSION + 1} is newer than the {FORMAT_VERSION}"):
        Group(format_version=FORMAT_VERSION + 1, prompt=prompt, completions=(one,))


def test_only_text_answers_have_words():
    assert Completion(prompt_id="p", content=Image(uri="x.png")).text == ""
    assert Completion.of(Prompt.of("hello"), "hi").text == "hi"
    assert Prompt(messages=(Message(role="user", content="first"), Message(role="assistant", content="last"))).text == "last"


def test_a_prompt_has_a_turn_and_a_snapshot_is_what_it_lists():
    with pytest.raises(ValidationError):
        Prompt(messages=())
    snapshots = [Snapshot(records=("a", "b"), query="all", counts={"groups": 2}) for _ in range(2)]
    assert snapshots[0] == snapshots[1]
    assert Snapshot(records=("a",), query="all", counts={"groups": 2}).id != snapshots[0].id
