"""Losses on orderings of completions.

    score         P K  reward of each completion; the only argument that carries a gradient
    tier          P K  place given by the annotator, 0 is best; equal places form no pair
    is_candidate  P K  False where a prompt has fewer than K completions, or the annotator did not place one
    weight        P    share of each prompt in the update

``ranking_loss`` is Bradley-Terry over every ordered pair (InstructGPT, arXiv 2203.02155, equation 1). The others answer
other questions with the same arguments: what if labels are noisy or ties are evidence (Christiano et al. 2017, arXiv
1706.03741, sections 2.2.2 and 2.2.3), what if only the best answer was chosen (Ziegler et al. 2019, arXiv 1909.08593), and
what if the order is a sequence of choices, best first (Plackett 1975, Luce 1959).

Every loss averages inside a prompt, so nine completions do not outvote four. The paper is silent on whether ties count in
the divisor; here they do not. For the other reading multiply ``weight`` by ``n_pairs / n_comparisons``. Prompts without any
ordered pair teach nothing: leave them out, and count them, before the weights are set.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from prefloop.errors import DataError
from prefloop.ops.loss import Loss, loss_of


def ranking_loss(score: Tensor, tier: Tensor, is_candidate: Tensor, weight: Tensor) -> Loss:
    """Bradley-Terry loss of every ordered pair in K-wise rankings (InstructGPT, equation 1).

    score         P K  reward of each completion; the only argument that carries a gradient
    tier          P K  place given by the annotator, 0 is best; equal places form no pair
    is_candidate  P K  False where a prompt has fewer than K completions
    weight        P    share of each prompt in the update
    """
    pairs = paired(score, tier, is_candidate)
    return over_pairs(-log_sigmoid(pairs.margin), pairs.is_won, pairs, weight)


def ranking_loss_with_label_noise(score: Tensor, tier: Tensor, is_candidate: Tensor, weight: Tensor, *, noise: float) -> Loss:
    """Bradley-Terry where a share ``noise`` of the labels is a coin flip: P' = (1 - noise) P + noise / 2.

    score         P K  reward of each completion; the only argument that carries a gradient
    tier          P K  place given by the annotator, 0 is best; equal places form no pair
    is_candidate  P K  False where a prompt has fewer than K completions
    weight        P    share of each prompt in the update

    No pair costs more than -log(noise / 2), and a label that contradicts a large margin pulls no more. Christiano et
    al. use noise = 0.1; labels flipped with probability e are noise = 2 e.
    """
    pairs = paired(score, tier, is_candidate)
    return over_pairs(noisy_nll(pairs.margin, noise=noise), pairs.is_won, pairs, weight)


def ranking_loss_with_ties(score: Tensor, tier: Tensor, is_candidate: Tensor, weight: Tensor, *, noise: float) -> Loss:
    """The same, and a tie says "equally good": half a win for each side (Christiano et al., section 2.2.2).

    score         P K  reward of each completion; the only argument that carries a gradient
    tier          P K  place given by the annotator, 0 is best; equal places pull the scores together
    is_candidate  P K  False where a prompt has fewer than K completions
    weight        P    share of each prompt in the update

    The loss is the mean over all comparisons of a prompt; accuracy and margin are about the ordered ones.
    """
    pairs = paired(score, tier, is_candidate)
    return over_pairs(noisy_nll(pairs.margin, noise=noise), pairs.is_won + 0.5 * pairs.is_tied, pairs, weight)


def best_of_k_loss(score: Tensor, tier: Tensor, is_candidate: Tensor, weight: Tensor) -> Loss:
    """The best of K was chosen with the probabilities of a softmax over the scores; the order below it is not used.

    score         P K  reward of each completion; the only argument that carries a gradient
    tier          P K  place given by the annotator, 0 is best; where several share it, one of them was chosen
    is_candidate  P K  False where a prompt has fewer than K completions
    weight        P    share of each prompt in the update

    For K = 2 this is ``ranking_loss``. Accuracy is the share of prompts whose highest score is on a best answer, margin
    the lead of the best answers' highest score over that of the rest.
    """
    place = tier.where(is_candidate, tier.amax() + 1)
    is_best = is_candidate & (place == place.amin(1, keepdim=True))  # P K
    is_rest = is_candidate & ~is_best
    is_chosen = is_rest.any(1)  # P, False where all answers share one place: nothing was chosen
    # Such rows get zeros, because the gradient of a logsumexp over nothing is not a number.
    best = score.where(is_best, -math.inf).where(is_chosen[:, None], 0)
    rest = score.where(is_rest, -math.inf).where(is_chosen[:, None], 0)

    nll = -log_sigmoid(best.logsumexp(1) - rest.logsumexp(1)) * is_chosen  # P
    margin = best.amax(1) - rest.amax(1)  # P
    return loss_of((weight * nll).sum(), accuracy=(weight * (margin > 0)).sum(), margin=(weight * margin).sum())


def plackett_luce_loss(score: Tensor, tier: Tensor, is_candidate: Tensor, weight: Tensor) -> Loss:
    """A ranking as a sequence of choices: the best of all, then the best of the rest, to the last (Plackett 1975, Luce 1959).

    score         P K  reward of each completion; the only argument that carries a gradient
    tier          P K  place given by the annotator, 0 is best; equal places are not compared
    is_candidate  P K  False where a prompt has fewer than K completions
    weight        P    share of each prompt in the update

    Each completion that was placed above others is chosen among itself and everything placed strictly below it. Without ties
    these choices are independent and their chances multiply to the chance of the order. With ties the completions of a tier
    are each chosen from below, and never against each other: a tie teaches nothing, as in ``ranking_loss``. (Breslow's
    and Efron's rules keep the tied in each other's denominators, which pulls their scores together.)

    The loss is the mean over a prompt's choices, of which an order of K completions has K - 1; for K = 2 it is
    ``ranking_loss``. Accuracy is the share of choices that the scores would have made, margin the lead over the best below.
    """
    is_below = paired(torch.zeros_like(score), tier, is_candidate).is_won  # P K K, [i, j]: j was placed below i
    is_choice = is_below.any(2)  # P K
    # Where nothing is below stand zeros, because the gradient of a logsumexp over nothing is not a number.
    below = score[:, None, :].where(is_below, -math.inf).where(is_choice[:, :, None], 0)  # P K K
    chosen = score.where(is_choice, 0)
    nll, margin = -log_sigmoid(chosen - below.logsumexp(2)), chosen - below.amax(2)  # P K

    def mean(figure: Tensor) -> Tensor:
        return (weight * (figure * is_choice).sum(1) / is_choice.sum(1).clamp(min=1)).sum()

    return loss_of(mean(nll), accuracy=mean(margin > 0), margin=mean(margin))


def tiers_of(score: Tensor, is_candidate: Tensor) -> Tensor:
    """Places by score, the highest first: P K -> P K. Equal scores share a place; a place is how many are higher.

    A score that is no number has no place and is refused; what stands where there is no candidate is never read.
    """
    if (score.isnan() & is_candidate).any():
        p, k = (score.isnan() & is_candidate).nonzero()[0].tolist()
        raise DataError(
            f"the score of completion {k} of prompt {p} in this batch is not a number, so it has no place in an order\n"
            f"Leave such completions out, or mend the scorer that gave it."
        )
    both = is_candidate[:, :, None] & is_candidate[:, None, :]
    return (both & (score[:, :, None] < score[:, None, :])).sum(2)


def n_pairs(tier: Tensor, is_candidate: Tensor) -> Tensor:
    """Ordered pairs of each prompt: P."""
    return paired(torch.zeros_like(tier), tier, is_candidate).is_won.sum((1, 2))


def n_comparisons(is_candidate: Tensor) -> Tensor:
    """Pairs of each prompt whether ordered or tied, C(K, 2): P."""
    n = is_candidate.sum(1)
    return n * (n - 1) // 2


class Pairs(NamedTuple):
    """Every pair of a prompt's completions; [i, j] looks from i to j."""

    margin: Tensor  # P K K  score of i minus score of j, 0 where one of them is no candidate
    is_won: Tensor  # P K K  i was placed above j
    is_tied: Tensor  # P K K  placed equal; each tie stands twice, once from either side


def paired(score: Tensor, tier: Tensor, is_candidate: Tensor) -> Pairs:
    is_pair = is_candidate[:, :, None] & is_candidate[:, None, :]  # P K K
    margin = (score[:, :, None] - score[:, None, :]).where(is_pair, 0)
    is_won = is_pair & (tier[:, :, None] < tier[:, None, :])
    is_self = torch.eye(tier.shape[1], dtype=torch.bool, device=tier.device)
    return Pairs(margin, is_won, is_pair & (tier[:, :, None] == tier[:, None, :]) & ~is_self)


def log_sigmoid(x: Tensor) -> Tensor:
    """Exact at any x. torch's own wakes every thread for a handful of numbers: milliseconds a call on a busy machine."""
    return -torch.logaddexp(x.new_zeros(()), -x)


def noisy_nll(margin: Tensor, *, noise: float) -> Tensor:
    """-log((1 - noise) sigmoid(margin) + noise / 2). Never leaves the logarithm, so noise = 0 is Bradley-Terry at any margin."""
    heard, flipped = margin.new_tensor([1 - noise, noise / 2]).log()
    return -torch.logaddexp(heard + log_sigmoid(margin), flipped)


def over_pairs(nll: Tensor, share: Tensor, pairs: Pairs, weight: Tensor) -> Loss:
    """The mean of ``nll`` P K K over a prompt's pairs by their shares P K K, summed with the prompts' weights."""

    def mean(figure: Tensor, share: Tensor) -> Tensor:
        return (weight * (figure * share).sum((1, 2)) / share.sum((1, 2)).clamp(min=1)).sum()

    return loss_of(mean(nll, share), accuracy=mean(pairs.margin > 0, pairs.is_won), margin=mean(pairs.margin, pairs.is_won))
