"""Figures of the table by hand: an answer's length is its own, and the proxy's fondness of length has a sign."""

from dataclasses import replace

import pytest
import torch

from prefloop.evaluate.policies import PoliciesConfig, best, figures
from prefloop.models.load import load_policy
from tests.evaluate.test_policies import settings
from tests.helpers import assert_close
from tests.methods.test_ppo import two_answers
from tests.methods.toy import WORLD, gold, toy, toy_encoder


@pytest.mark.parametrize(("n_prompts", "length", "finished"), [(2, [3.0, 1.0], [1.0, 0.0]), (1, [2.0], [0.5])])
def test_length_is_that_of_the_answer_without_its_prompt_and_finished_is_the_share_that_ended(n_prompts, length, finished):
    samples = replace(two_answers(), is_finished=torch.tensor([True, False]))
    told = figures(samples, n_prompts, lambda prompts, completions: [4.0, 8.0])
    assert_close(told["length"], length)
    assert_close(told["finished"], finished)
    assert_close(told["gold"], [4.0, 8.0] if n_prompts == 2 else [6.0])


@pytest.mark.parametrize(("scorer", "sign"), [("words", 1), ("fewer_words", -1)])
def test_a_proxy_that_counts_words_goes_with_length_and_its_mirror_against_it(scorer, sign):
    config = PoliciesConfig.of(**settings(reward=f"python:tests.evaluate.scorers:{scorer}", best_of={"policy": "sft", "n": 6}))

    class Seeds:
        device = "cpu"
        seed = staticmethod(lambda *key: 4)

    policy = load_policy(toy() / "sft" / "model")
    _, _, trust = best(policy, toy_encoder(), list(WORLD.prompts), gold, config, Seeds())  # type: ignore[arg-type]
    assert sign * trust["length_correlation"] > 0.8
