"""What a reward model's representation keeps: the unsupervised half of RLP (UML, Lang et al. 2024, arXiv 2403.19279, section 4.1).

Two answers of the policy to one prompt are two views of it. Each is encoded as a Gaussian; what both views tell is kept, what only
one of them tells is squeezed out (multi-view information bottleneck, Federici et al. 2020, arXiv 2002.07017):

    L_M = -I(z_1; z_2) + SKL( p(z | v_1), p(z | v_2) )

    mean, std   P Z  of a view's Gaussian
    joint       P    what the critic says of two codes that belong together
    product     P    what it says of two that do not (the row's own second code with a first one of another row)
    distance    P    SKL of the two views, ``symmetric_kl``
    weight      P    share of each prompt in the update

The information is the Jensen-Shannon estimate of Hjelm et al. 2019 (arXiv 1808.06670, equation 4). It is an objective, not a
quantity: a critic that says 0 everywhere gives -2 log 2, and its maximum is 2 JS - 2 log 2, at the critic log(joint / product).
What is logged in nats (``information/nats``) is a lower bound on the information, equal to it at that same critic.

The paper's table 4 compares four losses, all made of these pieces:

    MIB          ``bottleneck_loss``    joint of the codes of two answers; SKL
    MVI          ``information_loss``   the same without the SKL
    InfoMax      ``information_loss``   joint of an answer's code and the hidden state it was made from
    contrastive  ``contrastive_loss``   similarity of two answers' codes, against those of other prompts

Gradients go through everything into the backbone; that is the point of it. The negatives couple rows: draw them among the
rows that are computed together, or let each row bring its own, else memory settings move the gradient.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize, softplus

from prefloop.errors import DataError
from prefloop.ops.loss import Loss, loss_of

Critic = Callable[[Tensor, Tensor], Tensor]  # P Z, P Z -> P

LEAST_STD = 1e-7  # a code that is certain has no density


def positive(raw: Tensor) -> Tensor:
    """A standard deviation from what a head says: any shape. The paper does not name its map; the reference code of MIB has this."""
    return softplus(raw) + LEAST_STD


def reparameterised(mean: Tensor, std: Tensor, noise: Tensor) -> Tensor:
    """A draw from N(mean, std^2) that gradients pass through; ``noise`` is standard normal: P Z."""
    return mean + std * noise


def symmetric_kl(mean: Tensor, std: Tensor, other_mean: Tensor, other_std: Tensor) -> Tensor:
    """Half of KL(p || q) + KL(q || p) of two diagonal Gaussians, in closed form: P Z -> P, nats.

    The logarithms of the two directions cancel. MIB's reference code estimates the same number from one draw.
    """
    gap = (mean - other_mean) ** 2
    there, back = (std**2 + gap) / other_std**2, (other_std**2 + gap) / std**2
    return 0.25 * (there + back - 2).sum(-1)


class Said(NamedTuple):
    """The critic's answers."""

    joint: Tensor  # P  on pairs of codes that belong together
    product: Tensor  # P  on pairs of which one code was exchanged


def critic_says(critic: Critic, first: Tensor, second: Tensor, permutation: Tensor) -> Said:
    """The critic on (first, second) and on (first of row ``permutation[p]``, second): P Z, P Z, P -> P, P.

    The permutation must leave no row where it is: a negative would be a positive. ``torch.arange(n).roll(1)`` does.
    """
    n_kept = int((permutation == torch.arange(len(first), device=permutation.device)).sum())
    if n_kept:
        raise DataError(
            f"the permutation leaves {n_kept} of {len(first)} rows where they are, which makes their negatives positives\n"
            f"Move every row, which takes at least two rows: torch.arange(n).roll(1) does."
        )
    return Said(critic(first, second), critic(first[permutation], second))


def bottleneck_loss(joint: Tensor, product: Tensor, distance: Tensor, weight: Tensor) -> Loss:
    """RLP's L_M: minus the information two views share, plus what tells their codes apart.

    joint     P  the critic on codes that belong together
    product   P  the critic on codes that do not
    distance  P  ``symmetric_kl`` of the two views
    weight    P  share of each prompt in the update

    Every argument but the weight carries a gradient. The paper weighs the two terms alike, and the whole by lambda = 0.5: the
    ``scale`` of its term in the update.
    """
    information = information_loss(joint, product, weight)
    skl = (weight * distance).sum()
    return loss_of(information.value + skl, **{k: v for k, v in information.metrics.items() if k != "loss"}, skl=skl)


def information_loss(joint: Tensor, product: Tensor, weight: Tensor) -> Loss:
    """Minus the Jensen-Shannon estimate of information, -softplus(-joint) - softplus(product).

    joint    P  the critic on pairs that belong together
    product  P  the critic on pairs that do not
    weight   P  share of each row in the update

    Both carry a gradient. MVI where the pairs are codes of two answers, InfoMax where they are an answer's hidden state
    and its code. Metrics: ``information/js`` is the estimate, ``information/nats`` the bound joint - exp(product) + 1.
    """
    js = -(weight * (softplus(-joint) + softplus(product))).sum()
    nats = (weight * (joint - product.exp() + 1)).sum()
    return loss_of(-js, **{"information/js": js, "information/nats": nats})


def contrastive_loss(joint: Tensor, product: Tensor, is_negative: Tensor, weight: Tensor, *, temperature: float) -> Loss:
    """InfoNCE: the answer to the same prompt is to be told from answers to others (van den Oord et al. 2018, arXiv 1807.03748).

    joint        P    similarity of two answers' codes to the same prompt
    product      P N  similarity of the first to answers to other prompts
    is_negative  P N  False where a row has fewer than N
    weight       P    share of each row in the update

    Both similarities carry a gradient. ``accuracy`` is the share of rows whose own answer is the most similar. A row without
    negatives contributes 0.
    """
    own = joint[:, None] / temperature  # P 1
    others = (product / temperature).where(is_negative, -torch.inf)  # P N
    nll = torch.cat([own, others], 1).logsumexp(1) - own.squeeze(1)  # P
    is_right = (own > others).all(1) & is_negative.any(1)
    return loss_of((weight * nll).sum(), accuracy=(weight * is_right).sum())


def cosine(first: Tensor, second: Tensor) -> Tensor:
    """Similarity of every code of the first with every one of the second: P Z, N Z -> P N."""
    return normalize(first, dim=-1) @ normalize(second, dim=-1).T
