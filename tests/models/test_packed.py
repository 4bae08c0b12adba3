"""One row per prompt: who sees whom, at which position, and when it is less work."""

import torch
from hypothesis import given, settings

from prefloop.models.batch import RankedBatch
from prefloop.models.packed import packed_rows, packing_pays
from tests.models.test_batch import GROUPS, ranked_of


@settings(max_examples=30, deadline=None)
@given(groups=GROUPS)
def test_what_a_completions_last_token_sees_is_its_prompt_and_its_own_completion_in_order(groups):
    rows = packed_rows(ranked_of(groups))
    for p, (prompt, answers) in enumerate(groups):
        for k, answer in enumerate(answers):
            last = int(rows.last[p, k])
            seen = rows.sees[p, 0, last].nonzero()[:, 0]
            assert rows.tokens[p, seen].tolist() == prompt + answer
            assert rows.position[p, seen].tolist() == list(range(len(prompt + answer)))


@settings(max_examples=30, deadline=None)
@given(groups=GROUPS)
def test_every_token_sees_what_it_would_see_in_a_row_of_its_own(groups):
    rows = packed_rows(ranked_of(groups))
    for p, (prompt, answers) in enumerate(groups):
        column = len(prompt)
        for text in [prompt, *answers]:
            start = 0 if text is prompt else column
            for offset in range(len(text)):
                seen = rows.tokens[p, rows.sees[p, 0, start + offset]].tolist()
                assert seen == (prompt[: offset + 1] if text is prompt else prompt + text[: offset + 1])
            column += 0 if text is prompt else len(text)
        assert rows.tokens.shape[1] >= column
        assert not rows.sees[p, 0, :column, column:].any(), "nothing real sees padding"
        assert rows.sees[p, 0].any(1).all(), "a row that sees nothing has no softmax"


def batch_of(prompt: int, answer: int, k: int) -> RankedBatch:
    return ranked_of([([1] * prompt, [[2] * answer] * k)])


def test_it_pays_for_long_prompts_and_many_short_answers_and_not_the_other_way_round():
    assert packing_pays(batch_of(256, 64, 9), 128)
    assert packing_pays(batch_of(15, 20, 4), 128)
    assert not packing_pays(batch_of(40, 120, 8), 128)
    assert not packing_pays(batch_of(10, 10, 1), 128), "with one answer there is nothing to share"


def test_missing_completions_take_no_columns():
    rows = packed_rows(ranked_of([([1, 2], [[3], [4]]), ([5], [[6]])]))
    assert rows.tokens.tolist() == [[1, 2, 3, 4], [5, 6, 0, 0]]
    assert rows.position.tolist() == [[0, 1, 2, 2], [0, 1, 0, 0]]
    assert rows.last[0].tolist() == [2, 3]
    assert torch.equal(rows.last[1, :1], torch.tensor([1]))
