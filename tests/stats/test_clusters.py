from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefloop.errors import DataError
from prefloop.stats.clusters import (
    Clusters,
    bidirectional,
    clusters,
    looked_up,
    mistaken,
    nearer_than,
    same_words,
    uncontradicted,
)
from tests.helpers import assert_close

quick = settings(deadline=None, max_examples=50)
samples = st.lists(st.text("abc", min_size=1, max_size=2), min_size=1, max_size=8)


def never(first: str, second: str) -> bool:
    return False


def same_letter(first: str, second: str) -> bool:
    return first[0] == second[0]


def meanings(texts: list[str], found: Clusters) -> set[frozenset[str]]:
    return {frozenset(texts[i] for i in cluster) for cluster in found.members}


# ------------------------------------------------------------------------------------------------------- the clustering


def test_ten_answers_of_which_six_mean_the_same():
    texts = ["b1", "a1", "a2", "c1", "a1", "b2", "a3", "a4", "c2", "a1"]
    found = clusters(texts, same_letter)
    assert found.members == ((1, 2, 4, 6, 7, 9), (0, 5), (3, 8))
    assert found.representatives == ("a1", "b1", "c1")
    assert found.largest == (1, 2, 4, 6, 7, 9)
    assert found.outside == (0, 3, 5, 8)
    assert_close(found.confidence, 6 / 10)
    assert not found.is_tied


def test_answers_that_all_differ_are_alone_and_those_that_are_all_the_same_leave_nothing_outside():
    alone, together = clusters(["a", "b", "c", "d"], never), clusters(["a", "b", "c", "d"], lambda first, second: True)
    assert_close([alone.confidence, together.confidence], [1 / 4, 1.0])
    assert len(alone.members) == 4 and alone.is_tied
    assert together.outside == () and not together.is_tied
    assert clusters(["a"], never).confidence == 1.0


def test_equal_texts_are_one_without_being_asked_about():
    asked = []
    found = clusters(["b", "a", "b"], lambda *pair: asked.append(pair) is not None)
    assert found.members == ((0, 2), (1,))
    assert asked == [("b", "a")]


@quick
@given(samples)
def test_the_clusters_are_a_partition_and_the_largest_is_first(texts: list[str]):
    found = clusters(texts, same_letter)
    assert sorted(i for cluster in found.members for i in cluster) == list(range(len(texts)))
    assert found.n == len(texts)
    sizes = [len(cluster) for cluster in found.members]
    assert sizes == sorted(sizes, reverse=True)
    assert sorted((*found.largest, *found.outside)) == list(range(len(texts)))
    assert meanings(texts, found) == {frozenset(t for t in texts if t[0] == letter) for letter in {t[0] for t in texts}}


@quick
@given(st.lists(st.sampled_from("abcde"), min_size=2, max_size=5), st.lists(st.booleans(), min_size=25, max_size=25))
def test_the_order_of_the_sample_does_not_matter_even_where_being_the_same_is_not_transitive(texts: list[str], says: list[bool]):
    """Any relation of five texts, as models give them: neither symmetric nor transitive."""
    are_same = looked_up(list("abcde"), np.array(says).reshape(5, 5))
    expected = clusters(texts, are_same)
    for shuffled in list(permutations(texts))[:24]:
        found = clusters(shuffled, are_same)
        assert meanings(list(shuffled), found) == meanings(texts, expected)
        assert found.representatives == expected.representatives
        assert_close(found.confidence, expected.confidence)


def test_the_most_frequent_text_speaks_for_its_cluster_and_only_it_is_asked():
    """b is near a and near c, but a is not near c. With b most frequent all three are one, with a most frequent they are two."""
    near = {("b", "a"), ("a", "b"), ("b", "c"), ("c", "b")}
    are_same = lambda first, second: (first, second) in near  # noqa: E731
    assert meanings(["a", "b", "b", "c"], clusters(["a", "b", "b", "c"], are_same)) == {frozenset("abc")}
    assert meanings(["a", "a", "b", "c"], clusters(["a", "a", "b", "c"], are_same)) == {frozenset("ab"), frozenset("c")}


def test_of_clusters_equally_large_the_one_that_was_founded_first_leads():
    found = clusters(["c1", "a1", "c1", "a2"], same_letter)
    assert found.is_tied
    assert found.representatives == ("c1", "a1")  # twice the same text goes before two texts


def test_nothing_cannot_be_clustered():
    with pytest.raises(DataError, match="no answer"):
        clusters([], same_letter)


# -------------------------------------------------------------------------------------------------------- equivalences


def test_meaning_the_same_takes_both_directions():
    implied = {("a poodle sleeps", "a dog sleeps"), ("a dog sleeps", "a dog rests"), ("a dog rests", "a dog sleeps")}
    are_same = bidirectional(lambda first, second: (first, second) in implied)
    assert are_same("a dog sleeps", "a dog rests")
    assert not are_same("a poodle sleeps", "a dog sleeps")
    assert not are_same("a dog sleeps", "a poodle sleeps")


def test_the_second_direction_is_asked_only_where_the_first_holds():
    asked = []
    bidirectional(lambda *pair: asked.append(pair) is not None)("a", "b")
    assert asked == [("a", "b")]


@pytest.mark.parametrize(
    ("there", "back", "is_same", "is_uncontradicted"),
    [
        ("entailment", "entailment", True, True),
        ("entailment", "neutral", False, True),
        ("neutral", "neutral", False, True),
        ("entailment", "contradiction", False, False),
        ("contradiction", "neutral", False, False),
    ],
)
def test_not_contradicted_is_looser_than_entailed_both_ways(there: str, back: str, is_same: bool, is_uncontradicted: bool):
    label = {("a", "b"): there, ("b", "a"): back}
    assert bidirectional(lambda first, second: label[first, second] == "entailment")("a", "b") == is_same
    assert uncontradicted(lambda first, second: label[first, second])("a", "b") == is_uncontradicted


def test_a_relation_computed_in_one_batch_is_looked_up():
    entails = looked_up(["a", "b", "a"], [[True, True, False], [False, True, False], [False, False, False]])
    assert entails("a", "b") and not entails("b", "a")
    assert entails("a", "a")  # of a text that stands twice the first row counts


@pytest.mark.parametrize("table", [[[True, False]], [[1, 0], [0, 1]], [[0.9, 0.1], [0.1, 0.9]]])
def test_a_table_of_another_shape_or_of_numbers_is_refused(table: list):
    with pytest.raises(DataError, match="2 x 2 booleans"):
        looked_up(["a", "b"], table)


@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        ("The cat sat.", "the  cat sat", True),
        ("“Paris”, of course!", "paris of course", True),
        ("答案是42。", "答案是42", True),
        ("Ｐａｒｉｓ！", "Paris!", True),
        ("3.5", "35", False),
        ("3.5", "3 5", False),
        ("5", "-5", False),
        ("the cat sat", "the sat cat", False),
        ("", "!", True),
    ],
)
def test_the_same_words_are_the_same_whatever_their_case_marks_and_spaces(first: str, second: str, is_same: bool):
    assert same_words(first, second) == same_words(second, first) == is_same


def test_near_enough_is_a_cosine_of_at_least_the_threshold():
    vectors = {"east": [2.0, 0.0], "north-east": [1.0, 1.0], "north": [0.0, 3.0], "nowhere": [0.0, 0.0]}
    are_same = nearer_than(vectors, 0.7)
    assert are_same("east", "north-east")  # cos 45 degrees is 0.707
    assert not are_same("east", "north")
    assert not nearer_than(vectors, 0.71)("east", "north-east")
    assert nearer_than(vectors, 1.0)("north", "north")  # at least, not above
    assert not are_same("nowhere", "nowhere")


def test_a_relation_errs_about_its_share_of_pairs_and_whoever_is_asked_first_and_every_time():
    texts = [str(n) for n in range(60)]
    pairs = [(a, b) for a in texts for b in texts if a < b]  # 1770
    same_length = lambda first, second: len(first) == len(second)  # noqa: E731
    wrong = mistaken(same_length, 0.2, seed=3)
    errs = [wrong(*pair) != same_length(*pair) for pair in pairs]
    assert 0.16 < np.mean(errs) < 0.24, "the standard deviation of the share is 0.0095"
    assert [wrong(b, a) for a, b in pairs] == [wrong(*pair) for pair in pairs]
    assert [mistaken(same_length, 0.2, seed=4)(*pair) for pair in pairs] != [wrong(*pair) for pair in pairs]
    assert mistaken(same_length, 0.0, seed=3) is same_length
