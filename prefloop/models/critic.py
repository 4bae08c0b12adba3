"""Critics: a scalar V(everything before token t) for every token of an answer."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from prefloop.errors import ConfigError
from prefloop.models.adapters import is_adapted
from prefloop.models.heads import head_is_plain, hidden_states, output_head, policy_logprobs, predictors, unwrapped
from prefloop.models.load import load_reward, new_reward
from prefloop.models.tokenizer import refuse_other_tokenizer
from prefloop.ops.logprobs import logprobs_from_hidden


class Critic(nn.Module):
    """A trunk and a value head; the trunk is its own network, or the policy's.

    The head has a bias, which reward heads lack, so that a change of the reward's scale can be carried over exactly.
    """

    def __init__(self, trunk: nn.Module, head: nn.Linear, *, is_shared: bool):
        super().__init__()
        if is_shared:
            self.policy = trunk  # a submodule: trained together
        else:
            self.trunk = trunk
        self.value_head = head
        self.is_shared = is_shared

    def forward(self, tokens: Tensor, wanted: Tensor | None = None) -> Tensor:
        """B T -> B T; column t is the value of the text before token t, column 0 is 0, and so is what is not ``wanted`` (B T)."""
        trunk = self.policy if self.is_shared else self.trunk
        if wanted is None:
            return self.values(hidden_states(trunk, tokens))
        return self.values(hidden_states(trunk, tokens, predictors(wanted))) * wanted

    def values(self, hidden: Tensor) -> Tensor:
        value = self.value_head(hidden[:, :-1]).squeeze(-1)
        return torch.cat([torch.zeros_like(value[:, :1]), value], 1)

    def logprobs_and_values(self, tokens: Tensor, wanted: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
        """Both of the wanted tokens, 0 elsewhere, from one pass over a shared trunk; from two where the logits are not the
        output head's alone."""
        hidden = hidden_states(self.policy, tokens, predictors(wanted))
        values = self.values(hidden) * wanted
        if not head_is_plain(self.policy):
            return policy_logprobs(self.policy, tokens, wanted, temperature=temperature), values
        return logprobs_from_hidden(output_head(self.policy), hidden, tokens, wanted, temperature=temperature), values

    @torch.no_grad()
    def rescale(self, gain: float, bias: float) -> None:
        """From V to gain * V + bias, exactly."""
        self.value_head.weight.mul_(gain)
        self.value_head.bias.mul_(gain).add_(bias)


def load_critic(
    kind: Literal["reward", "policy", "trunk"],
    policy: nn.Module,
    policy_folder: str,
    reward: str,
    *,
    seed: int,
    device: torch.device | str,
) -> Critic:
    """A critic from the reward model (InstructGPT), from the policy, or as a zero head on the policy's trunk."""
    if kind == "trunk":
        head = nn.Linear(policy.config.hidden_size, 1, device=device)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        return Critic(policy, head, is_shared=True)
    if kind == "reward":
        folder = reward.split(",")[0]
        if ":" in folder:
            raise ConfigError(
                f"critic=reward starts from a reward model, but the reward is {reward!r}, which has no weights\n  use critic=policy or share=trunk"
            )
        refuse_other_tokenizer(
            folder, policy_folder, "critic=reward", "use critic=policy or share=trunk; the reward itself may have any tokenizer"
        )
        return critic_of(load_reward(folder, device=device))
    model = new_reward(policy_folder, seed=seed, device=device)
    nn.init.zeros_(model.score.weight)
    return critic_of(model)


def critic_of(reward: Any) -> Critic:
    """A reward model that goes on as a critic: at first V is the shifted score of what stands before a token."""
    model = unwrapped(reward)
    shift = float(getattr(model.config, "prefloop_reward_shift", 0.0))
    head = nn.Linear(model.score.in_features, 1, device=model.device)
    with torch.no_grad():
        head.weight.copy_(model.score.weight)
        head.bias.fill_(-shift)
    model.score.requires_grad_(False)  # its copy learns
    return Critic(reward if is_adapted(reward) else model.base_model, head, is_shared=False)
