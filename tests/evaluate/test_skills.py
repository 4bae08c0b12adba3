"""Skills are measured by what a policy says greedily after a held-out question in plain text."""

import pytest

from prefloop.evaluate import skills
from prefloop.evaluate.skills import skill_hits
from prefloop.world import World
from tests.models import tiny


class Answers:
    """Stands in for the sampler: answers every question right, or none."""

    def __init__(self, wrong: set[int]):
        self.wrong, self.asked = wrong, []

    def __call__(self, model, encoder, prompts, *, k, max_new_tokens, greedy, seed):
        assert greedy and k == 1 and encoder.template == "plain"
        self.asked += [prompt.text for prompt in prompts]
        items = {item.prompt: item for name in World.SKILLS for item in World().skill_items(name, 8, seed=0)}
        texts = [
            items[prompt.text].answer + (". sum: 1 + 1 = 2." if i not in self.wrong else "9") for i, prompt in enumerate(prompts)
        ]
        longest = max(len(encoder.completion_ids(text.partition(".")[0])) for text in texts)
        assert max_new_tokens >= longest  # there is room for every right answer
        return type("Samples", (), {"completions": [type("Text", (), {"text": text}) for text in texts]})


@pytest.mark.parametrize("skill", World.SKILLS)
def test_an_answer_counts_up_to_its_full_stop(monkeypatch, skill):
    answers = Answers(wrong={2, 5})
    monkeypatch.setattr(skills, "sample", answers)
    hits = skill_hits(tiny.policy(), tiny.encoder(template="plain"), skill, n=8, language="en")
    assert hits == [1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0]
    assert answers.asked == [item.prompt for item in World().skill_items(skill, 8, seed=0)]


def test_a_model_that_has_learned_nothing_has_no_skill():
    assert skill_hits(tiny.policy(), tiny.encoder(template="plain"), "sums", n=4, language="en") == [0.0] * 4
