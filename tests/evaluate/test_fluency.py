import math

import pytest
import torch

from prefloop.evaluate.fluency import distinct, fluency, surprise
from prefloop.models.sampling import sample
from prefloop.records import Prompt
from tests.helpers import assert_close
from tests.models.tiny import encoder, policy


def drawn(k: int = 2, temperature: float = 1.0):
    prompts = [Prompt.of("the cat sat"), Prompt.of("a dog and a cat")]
    return sample(policy(), encoder(template="plain"), prompts, k=k, max_new_tokens=6, temperature=temperature, seed=0)


def test_what_a_policy_says_surprises_itself_by_the_probabilities_it_was_drawn_with():
    samples = drawn()
    n_tokens = (samples.length - samples.prompt_length).float()
    assert_close(surprise(policy(), samples), -samples.logprobs.sum(1) / n_tokens)


def test_surprise_is_at_temperature_one_whatever_the_answers_were_drawn_at():
    cool = drawn(temperature=0.1)
    n_tokens = (cool.length - cool.prompt_length).float()
    assert all(torch.tensor(surprise(policy(), cool)) > 3 * -cool.logprobs.sum(1) / n_tokens)


def test_a_reference_that_knows_nothing_is_surprised_by_the_log_of_its_vocabulary():
    reference = policy()
    with torch.no_grad():
        reference.get_output_embeddings().weight.zero_()  # type: ignore[union-attr]
    assert_close(surprise(reference, drawn()), [math.log(reference.config.vocab_size)] * 4)


@pytest.mark.parametrize(
    ("texts", "of_words", "of_pairs"),
    [
        (["a b c d"], 1, 1),
        (["so happy so happy"], 2 / 4, 2 / 3),  # so happy, happy so, so happy
        (["So, happy! so: HAPPY"], 2 / 4, 2 / 3),
        (["a b", "a b"], 2 / 4, 1 / 2),  # no pair reaches from one text into the next
        (["好吃好吃"], 2 / 4, 2 / 3),
        (["word"], 1, 1),
        (["", "..."], 1, 1),
    ],
)
def test_distinct_is_the_share_of_words_or_neighbours_that_are_new(texts, of_words, of_pairs):
    assert_close(distinct(texts, 1), of_words)
    assert_close(distinct(texts, 2), of_pairs)


def test_figures_are_means_over_the_answers_of_a_prompt():
    samples = drawn(k=3)
    figures = fluency(policy(), samples, 2)
    assert list(figures) == ["nll", "distinct_1", "distinct_2"]
    assert_close(figures["nll"], torch.tensor(surprise(policy(), samples)).reshape(2, 3).mean(1))
    shares = [distinct([completion.text], 1) for completion in samples.completions]
    assert_close(figures["distinct_1"], [sum(shares[:3]) / 3, sum(shares[3:]) / 3])
