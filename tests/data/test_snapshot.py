"""Snapshots: equal sets are equal, and differences are found."""

from prefloop.data.snapshot import changes, snapshot
from prefloop.records import Completion, Group, Prompt


def some_groups(n: int) -> list[Group]:
    prompts = [Prompt.of(str(k)) for k in range(n)]
    return [Group(prompt=prompt, completions=(Completion.of(prompt, "a"),)) for prompt in prompts]


def test_the_order_of_records_does_not_matter_and_their_content_does():
    one, two, three = some_groups(3)
    whole = snapshot([one, two, three], query="x.jsonl")
    assert snapshot([three, one, two], query="x.jsonl") == whole
    assert snapshot([one, two], query="x.jsonl").id != whole.id
    assert snapshot([one, two, three], query="y.jsonl").id != whole.id
    assert whole.counts == {"Group": 3}


def test_a_record_that_occurs_twice_counts_twice():
    one, *_ = some_groups(1)
    assert snapshot([one, one], query="").records == snapshot([one], query="").records * 2


def test_changes_lead_from_one_snapshot_to_the_other():
    one, two, three = some_groups(3)
    before, after = snapshot([one, two, two], query=""), snapshot([two, three], query="")
    added, removed = changes(before, after)
    assert added == snapshot([three], query="").records
    assert removed == snapshot([one, two], query="").records
    assert changes(before, before) == ((), ())


def test_texts_have_snapshots_too():
    assert snapshot(["a", "b"], query="corpus").counts == {"str": 2}
    assert changes(snapshot(["a"], query=""), snapshot(["b"], query="")).added == snapshot(["b"], query="").records
