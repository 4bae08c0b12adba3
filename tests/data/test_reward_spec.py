"""Reward specs: terms and weights, the files they name, gold that hides in a sum."""

import pytest

from prefloop.data.reward_spec import Term, files_of, names_gold, terms_of


@pytest.mark.parametrize(
    ("spec", "terms"),
    [
        ("runs/reward/model", [(1.0, "runs/reward/model")]),
        ("a,b", [(1.0, "a,b")]),
        ("0.7*a + 0.3*python:m:f", [(0.7, "a"), (0.3, "python:m:f")]),
        ("-2 * a + +1e1*b", [(-2.0, "a"), (10.0, "b")]),
        ("a+b", [(1.0, "a+b")]),  # a sign without spaces belongs to the name
        ("run-2*", [(1.0, "run-2*")]),
    ],
)
def test_terms(spec, terms):
    assert terms_of(spec) == [Term(*term) for term in terms]


@pytest.mark.parametrize(
    ("spec", "files"),
    [
        ("runs/a/model, runs/b/model", ["runs/a/model", "runs/b/model"]),
        ("0.5*runs/a + lexicon:words.csv + python:m:f + 2*policy:runs/p", ["runs/a", "words.csv", "runs/p"]),
        ("judge:j.yaml + rules:runs/r", ["j.yaml", "runs/r"]),
        ("world:en", []),
        ("a sentence + another", ["a sentence", "another"]),
        ("", []),
    ],
)
def test_files(spec, files):
    assert files_of(spec) == files


@pytest.mark.parametrize(("spec", "is_gold"), [("world:en", True), ("a + 0.1*world:zh", True), ("a + python:world:f", False)])
def test_gold_does_not_hide_in_a_sum(spec, is_gold):
    assert names_gold(spec) is is_gold
