"""Policy, reference, critic and reward of one run, and which of them share weights.

    none      each is a network of its own, as in InstructGPT; policy and critic learn all their weights
    trunk     the value head stands on the policy's own trunk, and both learn it; the reference is a network of its own
    adapters  one frozen base. Policy and critic learn a LoRA adapter each; the reference is the base without one; a reward
              that is an adapter on this base is read on it

With adapters every role is a model with modules of its own whose frozen tensors are the very same objects, so nothing has to
be switched on or off: the step of one role cannot reach another. The base is the model the run starts from. If that is an
adapter folder, it is base + adapter merged, so the reference of what continues from an adapter SFT is the SFT model. What is
no adapter on this base is read as a network of its own, and answers the same.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from prefloop.config import Adapter
from prefloop.errors import ConfigError
from prefloop.models.adapters import is_adapter_on, read_adapter, same_folder, twin, with_adapter
from prefloop.models.critic import Critic, critic_of, load_critic
from prefloop.models.encode import Template
from prefloop.models.heads import without_dropout
from prefloop.models.load import load_policy, load_reward, with_score
from prefloop.models.scorer import Scorer, load_scorer
from prefloop.models.tokenizer import refuse_other_tokenizer

Share = Literal["adapters", "trunk", "none"]


class Roles(NamedTuple):
    policy: nn.Module
    reference: nn.Module
    critic: Critic
    scorer: Scorer


def load_roles(
    share: Share,
    *,
    model: str,
    reference: str,
    reward: str,
    critic: Literal["reward", "policy"],
    adapter: Adapter,
    seed: Callable[[str], int],
    device: torch.device,
    template: Template,
) -> Roles:
    """Everybody PPO needs. ``seed`` gives the seed of a name; an empty ``reference`` is the model itself."""
    base, policy = base_and_policy(model, adapter if share == "adapters" else Adapter(), seed=seed("adapter"), device=device)
    load = load_reward if base is None else partial(reward_on, base, model)
    if base is not None:
        values = critic_on(base, model, critic, reward, adapter, seed=seed("critic"))
    else:
        kind = "trunk" if share == "trunk" else critic
        values = load_critic(kind, policy, model, reward, seed=seed("critic"), device=device)
    scorer = load_scorer(reward, device=device, template=template, load=load)
    return Roles(policy, frozen_reference(base, model, reference, device=device), values, scorer)


def load_roles_without_critic(
    *,
    model: str,
    reference: str,
    rewards: Sequence[str],
    adapter: Adapter,
    seed: Callable[[str], int],
    device: torch.device,
    template: Template,
) -> tuple[nn.Module, nn.Module, dict[str, Scorer]]:
    """Policy, reference, and a scorer for each reward: on one base where ``adapter`` has a rank, else networks of their own."""
    base, policy = base_and_policy(model, adapter, seed=seed("adapter"), device=device)
    load = load_reward if base is None else partial(reward_on, base, model)
    scorers = {spec: load_scorer(spec, device=device, template=template, load=load) for spec in rewards}
    return policy, frozen_reference(base, model, reference, device=device), scorers


def base_and_policy(model: str, adapter: Adapter, *, seed: int, device: torch.device) -> tuple[PreTrainedModel | None, nn.Module]:
    """The policy without dropout, and the frozen base it is an adapter on, if it is one."""
    loaded = load_policy(model, device=device)
    if adapter.rank == 0:
        return None, without_dropout(loaded)
    return loaded, without_dropout(policy_on(loaded, adapter, seed=seed))


def frozen_reference(base: PreTrainedModel | None, model: str, reference: str, *, device: torch.device) -> nn.Module:
    """The model itself, which is the base where there is one; an adapter on that base; or any other model."""
    is_itself = not reference or same_folder(reference, model)
    if not is_itself:
        refuse_other_tokenizer(reference, model, "reference=")
    if base is None or not (is_itself or is_adapter_on(reference, model)):
        found: nn.Module = load_policy(reference or model, device=device)
    else:
        found = base if is_itself else read_adapter(reference, twin(base)).eval()
    return found.requires_grad_(False)


def policy_on(base: PreTrainedModel, adapter: Adapter, *, seed: int) -> Any:
    """The base with a new adapter that changes nothing yet."""
    shape = {"rank": adapter.rank, "alpha": adapter.alpha, "targets": adapter.targets}
    return with_adapter(twin(base), **shape, seed=seed).to(base.device)


def reward_on(base: PreTrainedModel, source: str, folder: str, *, device: torch.device | str) -> Any:
    """A reward model that is an adapter on the base, read on it; any other as it always is. Frozen."""
    if not is_adapter_on(folder, source):
        return load_reward(folder, device=device).requires_grad_(False)
    return adapted_reward(base, source, folder).requires_grad_(False)


def adapted_reward(base: PreTrainedModel, source: str, folder: str) -> Any:
    return read_adapter(folder, with_score(twin(base), source, seed=0)).to(base.device).eval()


def critic_on(
    base: PreTrainedModel, source: str, kind: Literal["reward", "policy"], reward: str, adapter: Adapter, *, seed: int
) -> Critic:
    """A critic whose trunk is the base with an adapter of its own: the reward model's, going on to learn, or a new one."""
    if kind == "policy":
        head = nn.Linear(base.config.get_text_config().hidden_size, 1, device=base.device)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        trunk: Any = policy_on(base, adapter, seed=seed)
        return Critic(without_dropout(trunk), head, is_shared=False)
    folder = reward.split(",")[0]
    if ":" in folder or not is_adapter_on(folder, source):
        raise ConfigError(
            f"share=adapters with critic=reward needs a reward model that is an adapter on {source}, and {folder} is none\n"
            f"  use critic=policy, or train the reward as one: prefloop reward model={source} adapter.rank=8"
        )
    return critic_of(adapted_reward(base, source, folder))
