"""KTO against the optimum that can be written down: all probability on answers that more people call good than bad.

With weights of 1 an answer that a share p of people calls good costs p (1 - s) + (1 - p) s, s = sigmoid(beta (h - z_0)): a
straight line in s, so at its end of it wherever p is not 1/2. Where labels contradict each other the majority wins whole
(arXiv 2402.01306, section 4.3), other than in DPO, whose optimum keeps the odds (test_dpo_optimum.py).
"""

from dataclasses import replace

import torch

from prefloop.engine.learner import Learner, Term
from prefloop.methods.kto import BAD, GOOD, ReferredAnswers
from prefloop.models.shared_prefix import completion_logprobs
from prefloop.ops.loss import Loss
from prefloop.ops.preference import kto_loss, mismatched_distance
from tests.methods.test_dpo_optimum import GOLD, answer_logprobs, everything
from tests.methods.toy import toy_policy

BETA = 0.5
SHARE = torch.sigmoid(2 * (GOLD - GOLD.median(1, keepdim=True).values))  # P N  of people who call an answer good


def over_exact_labels(model, batch: ReferredAnswers, *, distance: float) -> Loss:
    """``kto_loss`` over every answer, as often good and as often bad as people call it so."""
    logprobs = answer_logprobs(model, batch)
    n = batch.tier.shape[1]
    how = {"distance": distance, "beta": BETA, "desirable": 1.0, "undesirable": 1.0}
    weight = batch.weight[:, None] / n
    share = SHARE[: len(batch.weight)]
    parts = [
        kto_loss(logprobs, batch.ref_logprobs, torch.full_like(batch.tier, place == GOOD, dtype=torch.bool), weight * of, **how)
        for place, of in ((GOOD, share), (BAD, 1 - share))
    ]
    return Loss(parts[0].value + parts[1].value, {})


def test_with_exact_labels_the_majority_takes_everything():
    policy, batch = toy_policy(seed=1), everything()
    with torch.no_grad():
        reference = answer_logprobs(policy, batch)
    is_bad = SHARE < 0.5  # at exactly 1/2 an answer costs the same wherever it goes
    assert 0.2 < float(is_bad.float().mean()) < 0.8
    before = (reference.exp() * is_bad).sum(1)
    assert before.min() > 0.1, "there is a way to go for every prompt"
    referred = ReferredAnswers(**vars(replace(batch)), ref_logprobs=reference)

    learner = Learner(policy, lr=1e-2, steps=80, warmup=10, schedule="cosine", final=0.01, device="cpu")
    for _ in range(80):
        with torch.no_grad():
            now = answer_logprobs(policy, batch)
        shifted = (now - reference).roll(
            1, 0
        )  # every answer put to another prompt is an answer to it too: all prompts share them
        distance = float(mismatched_distance(shifted.flatten(), torch.zeros_like(shifted).flatten()))
        learner.step(Term(lambda model, part, z=distance: over_exact_labels(model, part, distance=z), referred))
    with torch.no_grad():
        learned = answer_logprobs(policy, batch).exp()
    left = (learned * is_bad).sum(1)
    assert left.max() < 0.02, f"probability of answers that more people call bad, by prompt {left.tolist()}"


def test_this_world_has_every_answer():
    with torch.no_grad():
        assert (completion_logprobs(toy_policy(seed=1), everything()).shape[:2]) == GOLD.shape
