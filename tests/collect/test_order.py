"""Where answers stand on the screen, and orders as lines of text."""

from collections import Counter
from itertools import pairwise

import hypothesis.strategies as st
import pytest
from hypothesis import given

from prefloop.collect.order import permuted, shown
from prefloop.collect.rank_string import LETTERS, parse, written

SECRET = "ab" * 32


@pytest.mark.parametrize("k", [2, 3, 4, 9, 16])
def test_over_k_slots_every_answer_stands_once_at_every_place(k):
    names = list(LETTERS[:k])
    screens = [shown(names, secret=SECRET, item_id="i", slot_no=slot, order="balanced") for slot in range(k)]
    assert all(sorted(screen) == names for screen in screens)
    assert Counter((name, place) for screen in screens for place, name in enumerate(screen)) == Counter(
        (name, place) for name in names for place in range(k)
    )


def test_of_two_answers_the_first_slots_show_both_orders_and_the_next_two_again():
    orders = [shown("ab", secret=SECRET, item_id="i", slot_no=slot, order="balanced") for slot in range(4)]
    assert orders[0] == orders[1][::-1]
    assert sorted(map(tuple, orders[2:])) == [("a", "b"), ("b", "a")]


def test_the_second_round_reads_backwards_so_that_neighbours_change():
    first, second = (
        [shown("abcd", secret=SECRET, item_id="i", slot_no=slot, order="balanced") for slot in slots]
        for slots in (range(4), range(4, 8))
    )
    after = {pair for screen in first for pair in pairwise(screen)}
    assert {(b, a) for a, b in after} == {pair for screen in second for pair in pairwise(screen)}


def test_items_start_from_different_orders_and_another_secret_from_others():
    firsts = Counter(shown("abcd", secret=SECRET, item_id=str(item), slot_no=0, order="balanced")[0] for item in range(400))
    assert set(firsts) == set("abcd")
    assert max(firsts.values()) < 150  # 100 expected each; 150 is six deviations of a fair draw (sqrt(400 * 3/16) = 8.7)
    own = [shown("abcdefgh", secret=SECRET, item_id="i", slot_no=0, order="shuffled")]
    assert own != [shown("abcdefgh", secret="cd" * 32, item_id="i", slot_no=0, order="shuffled")]


def test_an_order_as_given_is_left_alone():
    assert shown("abc", secret=SECRET, item_id="i", slot_no=5, order="as_given") == ["a", "b", "c"]


def test_every_order_can_come_up():
    assert len({tuple(permuted("abc", number.to_bytes(32))) for number in range(6)}) == 6


@st.composite
def orders(draw: st.DrawFn) -> tuple[list[list[str]], list[str]]:
    names = draw(st.permutations(LETTERS[: draw(st.integers(1, 16))]))
    cuts = sorted(draw(st.sets(st.integers(1, len(names)))) | {0, len(names)})
    parts = [list(names[a:b]) for a, b in pairwise(cuts)]
    return (parts[:-1], parts[-1]) if draw(st.booleans()) else (parts, [])


@given(orders())
def test_a_line_that_was_written_is_read_as_the_same_order(order):
    tiers, unusable = order
    read = parse(written(tiers, unusable))
    assert [set(tier) for tier in read.tiers] == [set(tier) for tier in tiers]
    assert set(read.unusable) == set(unusable)


@pytest.mark.parametrize("typed", ["b > a = c | d", "2 1=3 x4", "2,1=3|4", "B>A = C | D", "xd b a=c", "b  >  a =c|d"])
def test_an_order_can_be_typed_in_several_ways(typed):
    assert written(*parse(typed)) == "b > a = c | d"


@pytest.mark.parametrize(
    ("typed", "said"),
    [("a b a", "places a twice"), ("a | a", "places a twice"), ("q", "no order"), ("10", "no order"), ("a >", "no order"), ("a" * 999, "no order"), (" " * 300, "no order")],
)  # fmt: skip
def test_what_is_no_order_is_refused(typed, said):
    with pytest.raises(ValueError, match=said):
        parse(typed)
