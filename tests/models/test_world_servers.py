"""The servers of configs/wombat-world.yaml: that the good one is good, that the judge sees it, and that it sometimes talks nonsense."""

import json

import numpy as np

from prefloop.models.judge import JudgeConfig, marks_in
from tests.models.world_servers import WORLD, answerer, judge

PROMPTS = WORLD.prompts(80, split="train", seed=5)


def asked(text: str, seed: int = 0) -> dict:
    return {"messages": [{"role": "user", "content": text}], "seed": seed}


def shown(text: str, answer: str, seed: int = 0) -> dict:
    said = json.dumps({"conversation": [{"role": "user", "content": text}], "answer": answer})
    return {"messages": [{"role": "user", "content": said}], "seed": seed}


def marks(prompt, answer: str) -> float:
    """The sum of the first reply that can be read."""
    config = JudgeConfig(url="http://127.0.0.1:1/v1", model="m")
    found = (marks_in(judge(shown(prompt.text, answer, seed)), config) for seed in range(9))
    return next(sum(one) for one in found if one is not None)


def test_the_good_answerer_is_better_than_the_other_and_the_judge_says_so():
    answers = {name: [answerer(name)(asked(prompt.text)) for prompt in PROMPTS] for name in ("strong", "other")}
    worth = {name: np.array([WORLD.gold(p, a) for p, a in zip(PROMPTS, said, strict=True)]) for name, said in answers.items()}
    marked = {name: np.array([marks(p, a) for p, a in zip(PROMPTS, said, strict=True)]) for name, said in answers.items()}
    assert worth["strong"].mean() > worth["other"].mean() + 0.5
    assert marked["strong"].mean() > marked["other"].mean() + 1
    both = [np.concatenate(list(side.values())) for side in (worth, marked)]
    assert 0.5 < np.corrcoef(*both)[0, 1] < 0.999  # it sees gold, and not all of it


def test_replies_depend_on_what_is_asked_and_its_seed_alone():
    reply = answerer("other")
    text = PROMPTS[0].text
    assert reply(asked(text)) == reply(asked(text))
    assert len({reply(asked(text, seed)) for seed in range(9)}) > 1


def test_one_reply_in_twenty_cannot_be_read():
    config = JudgeConfig(url="http://127.0.0.1:1/v1", model="m")
    n = 1000
    unread = sum(marks_in(judge(shown("x", str(i))), config) is None for i in range(n))
    assert abs(unread / n - 0.05) < 4 * (0.05 * 0.95 / n) ** 0.5  # four standard errors
