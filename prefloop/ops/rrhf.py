"""RRHF: rank responses by their own likelihood, and imitate the best (Yuan et al. 2023, arXiv 2304.05302 v2, section 3.1).

    p_i    = log P(y_i | x) / |y_i|                                 equation 1, per token of the answer
    L_rank = sum over pairs with r_i < r_j of max(0, p_i - p_j)     equation 2, no margin
    L_ft   = -log P(y_best | x)                                     equations 3 and 4
    L      = L_rank + L_ft                                          equation 5

    logprobs      P K  log-probability of each answer, summed over its tokens; the only argument that carries a gradient
    length        P K  tokens of each answer, EOS included; never those of its padding or of its prompt
    tier          P K  place of each answer, 0 is best; from scores by ``tiers_of``. Equal places form no pair
    is_candidate  P K  False where a prompt has fewer than K answers
    weight        P    share of each prompt in the update

Scores count by their order alone. No reference, no distance: the likelihood that is trained is the reward it is judged by
(``length_normalised``). Answers are compared with answers to the same prompt only, whatever the number of prompts. Where
several answers share the best place, each is imitated in equal parts (the paper takes the first of them).

A prompt whose answers share one place has nothing to rank, and its best is any of them: it contributes 0, no imitation either.
Leave it out, and count it, before the weights are set.
"""

from torch import Tensor

from prefloop.ops.loss import Loss, loss_of
from prefloop.ops.preference import per_token, unbeaten
from prefloop.ops.ranking import Pairs, paired


def rrhf_loss(logprobs: Tensor, length: Tensor, tier: Tensor, is_candidate: Tensor, weight: Tensor, *, ranking: float) -> Loss:
    """Equation 5 with the imitation as a mean over the tokens of the best answer, so that both terms are per token.

    logprobs      P K  summed over each answer's tokens; the only argument that carries a gradient
    length        P K  tokens of each answer
    tier          P K  place of each answer, 0 is best; equal places form no pair
    is_candidate  P K  False where a prompt has fewer than K answers
    weight        P    share of each prompt in the update

    ``ranking`` weighs the first term: 1 in the paper, where 10 and 100 were worse.
    """
    mean = per_token(logprobs, length)
    return ranked_and_imitated(mean, mean, paired(mean, tier, is_candidate), weight, ranking=ranking)


def rrhf_loss_with_summed_imitation(
    logprobs: Tensor, length: Tensor, tier: Tensor, is_candidate: Tensor, weight: Tensor, *, ranking: float
) -> Loss:
    """Equation 5 as printed: the imitation is a sum over tokens, and outweighs the ranking by the length of the best answer.

    logprobs      P K  summed over each answer's tokens; the only argument that carries a gradient
    length        P K  tokens of each answer
    tier          P K  place of each answer, 0 is best; equal places form no pair
    is_candidate  P K  False where a prompt has fewer than K answers
    weight        P    share of each prompt in the update
    """
    mean = per_token(logprobs, length)
    return ranked_and_imitated(mean, logprobs, paired(mean, tier, is_candidate), weight, ranking=ranking)


def length_normalised(logprobs: Tensor, is_answer: Tensor) -> Tensor:
    """Equation 1: the mean log-probability of an answer's tokens, which is also its score under a trained policy: B.

    logprobs   B T  of each token given what stands before it
    is_answer  B T  True on the answer's tokens, EOS included; what stands elsewhere is never read
    """
    return per_token(logprobs.where(is_answer, 0).sum(1), is_answer.sum(1))


def ranked_and_imitated(mean: Tensor, imitated: Tensor, pairs: Pairs, weight: Tensor, *, ranking: float) -> Loss:
    """The hinge over ``mean`` P K and the imitation of the best by ``imitated`` P K.

    Metrics: ``loss_rank`` and ``loss_ft`` are the two terms; ``accuracy`` the share of ordered pairs that the likelihood orders
    alike; ``logps/best`` the best answer's log-probability per token, which ranking alone may let fall.
    """
    hinge = ((-pairs.margin).clamp(min=0) * pairs.is_won).sum((1, 2))  # P, a sum over pairs as in equation 2
    best = unbeaten(pairs)  # P K
    n_best, n_pairs = best.sum(1).clamp(min=1), pairs.is_won.sum((1, 2)).clamp(min=1)

    loss_rank = (weight * hinge).sum()
    loss_ft = -(weight * imitated.where(best, 0).sum(1) / n_best).sum()
    return loss_of(
        ranking * loss_rank + loss_ft,
        loss_rank=loss_rank,
        loss_ft=loss_ft,
        accuracy=(weight * ((pairs.margin > 0) & pairs.is_won).sum((1, 2)) / n_pairs).sum(),
        **{"logps/best": (weight * mean.where(best, 0).sum(1) / n_best).sum()},
    )
