"""One base in four roles: the weights are there once, every role says what it would say alone, and no step reaches another role."""

import hashlib
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch

from prefloop.config import Adapter
from prefloop.engine.learner import Learner, Term
from prefloop.errors import ConfigError
from prefloop.models.adapters import twin, with_adapter
from prefloop.models.batch import RankedBatch, TokenBatch, flat_rows
from prefloop.models.critic import Critic
from prefloop.models.heads import policy_logprobs, sequence_rewards
from prefloop.models.load import load_policy, load_reward, rewards_to_train, save_model
from prefloop.models.roles import Roles, frozen_reference, load_roles, load_roles_without_critic, reward_on
from prefloop.models.scorer import load_scorer
from prefloop.models.shared_prefix import scores
from prefloop.ops.loss import loss_of
from prefloop.ops.ranking import ranking_loss
from prefloop.records import Completion, Prompt
from tests.helpers import assert_close
from tests.models.test_load import trained
from tests.models.tiny import policy, prompts, tokenizer

TOKENS = torch.randint(3, 200, (3, 10), generator=torch.Generator().manual_seed(0))
LENGTH = torch.tensor([10, 7, 3])
ADAPTER = Adapter(rank=2, alpha=4.0)
ARCHITECTURES = ("llama", "gpt2")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def folders(request, tmp_path_factory) -> dict[str, str]:
    """A bare base; an SFT adapter on it; a reward and another policy that are adapters on the SFT model; a whole reward model."""
    made: Path = tmp_path_factory.mktemp(request.param)
    shape: dict[str, Any] = {"rank": 2, "alpha": 4.0}

    def kept(model: Any, name: str) -> str:
        return str(save_model(model, tokenizer(), made / name, card={}))

    bare = kept(policy(request.param), "bare")
    sft = kept(trained(with_adapter(load_policy(bare), **shape, seed=1)), "sft")
    judge = trained(rewards_to_train(sft, ADAPTER, seeds=[5])[0])
    judge.config.prefloop_reward_shift = 0.5
    other = trained(with_adapter(load_policy(sft), **shape, seed=2))
    whole = rewards_to_train(bare, Adapter(), seeds=[3])[0]
    return {
        "bare": bare,
        "sft": sft,
        "reward": kept(judge, "reward"),
        "other": kept(other, "other"),
        "whole": kept(whole, "whole"),
    }


@cache
def seed(name: str) -> int:
    return len(name)


def roles(folders: dict[str, str], share: str = "adapters", critic: str = "reward", reward: str = "reward") -> Roles:
    return load_roles(
        share, model=folders["sft"], reference="", reward=folders[reward], critic=critic, adapter=ADAPTER,
        seed=seed, device=torch.device("cpu"), template="plain",
    )  # fmt: skip


def addresses(model: torch.nn.Module) -> set[int]:
    return {tensor.data_ptr() for tensor in model.parameters()}


def fingerprint(model: torch.nn.Module) -> str:
    """Of what a policy answers and of every number it is made of."""
    with torch.no_grad():
        said = model(input_ids=TOKENS).logits
    tensors = [said, *(tensor for _, tensor in sorted(model.state_dict().items()))]
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest()


def test_a_twin_has_modules_of_its_own_and_the_very_same_tensors():
    one = policy()
    other = twin(one)
    assert all(a is b for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert not {id(module) for module in one.modules()} & {id(module) for module in other.modules()}
    assert other.lm_head.weight is other.model.embed_tokens.weight  # tied, as they were


def test_the_weights_of_the_base_are_there_once_for_all_roles(folders, monkeypatch):
    held = []
    monkeypatch.setattr("prefloop.models.roles.reward_on", lambda *a, **k: held.append(reward_on(*a, **k)) or held[0])
    found = roles(folders)
    base = addresses(found.reference)
    own = {}
    for name, model in (("policy", found.policy), ("critic", found.critic), ("reward", held[0])):
        trunk = {p.data_ptr() for n, p in model.named_parameters() if not any(w in n for w in ("lora_", "score", "value_head"))}
        assert trunk and trunk <= base, name
        own[name] = addresses(model) - base
    assert not own["policy"] & own["critic"] and not own["critic"] & own["reward"] and not own["policy"] & own["reward"]
    n_base = sum(p.numel() for p in found.reference.parameters())
    learned = [sum(p.numel() for p in model.parameters() if p.requires_grad) for model in (found.policy, found.critic)]
    assert all(0 < n < n_base / 2 for n in learned)
    assert not any(p.requires_grad for model in (found.reference, held[0]) for p in model.parameters())


@torch.no_grad()
def test_the_reference_after_an_adapter_sft_is_base_and_adapter_and_not_the_bare_base(folders):
    found = roles(folders)
    said, bare = load_policy(folders["sft"])(TOKENS).logits, load_policy(folders["bare"])(TOKENS).logits
    assert float((said - bare).abs().max()) > 0.1
    assert_close(found.reference(TOKENS).logits, said)
    assert_close(found.policy(TOKENS).logits, said)  # before its first step


@pytest.mark.parametrize("reference", ["other", "bare", "sft"])
@torch.no_grad()
def test_any_other_reference_says_what_it_says_alone(folders, reference):
    """In float64: a merged adapter is rounded before it is added."""
    base = load_policy(folders["sft"], dtype="float64")
    found = frozen_reference(base, folders["sft"], folders[reference], device=torch.device("cpu"))
    assert_close(
        found(TOKENS).logits,
        load_policy(folders[reference], dtype="float64" if reference != "bare" else "float32")(TOKENS).logits,
    )
    assert not any(p.requires_grad for p in found.parameters())


@pytest.mark.parametrize("reward", ["reward", "whole"])
def test_a_reward_on_the_base_scores_as_it_does_alone(folders, reward):
    found = roles(folders, critic="policy", reward=reward)
    asked = prompts(3)
    said = [answer_to(prompt) for prompt in asked]
    assert_close(torch.tensor(found.scorer(asked, said)), load_scorer(folders[reward], template="plain")(asked, said))


def answer_to(prompt: Prompt) -> Completion:
    return Completion.of(prompt, "the fox saw the cat")


@torch.no_grad()
def test_a_critic_from_a_reward_adapter_begins_as_its_shifted_score_and_one_from_the_policy_at_0(folders):
    values, model = roles(folders).critic(TOKENS), load_reward(folders["reward"])
    for t in range(1, TOKENS.shape[1]):
        assert_close(values[:, t], sequence_rewards(model, TOKENS[:, :t], torch.full((3,), t)) - 0.5)
    assert_close(roles(folders, critic="policy").critic(TOKENS), torch.zeros(3, 10))


def test_a_critic_from_a_reward_that_is_no_adapter_on_the_base_is_refused_in_words(folders):
    with pytest.raises(
        ConfigError, match=r"share=adapters with critic=reward needs a reward model that is an adapter on"
    ) as refusal:
        roles(folders, reward="whole")
    assert "use critic=policy, or train the reward as one: prefloop reward model=" in str(refusal.value)


# ------------------------------------------------------------------------------------------------ steps


def of_values(critic: Critic, batch: TokenBatch):
    return loss_of((batch.weight[:, None] * batch.token_weight * (critic(batch.tokens) - 1) ** 2).sum())


def of_logprobs(model, batch: TokenBatch):
    said = policy_logprobs(getattr(model, "policy", model), batch.tokens, batch.token_weight > 0, temperature=1.0)
    return loss_of((batch.weight[:, None] * batch.token_weight * -said).sum())


def of_rankings(model, batch: RankedBatch):
    return ranking_loss(scores(model, batch), batch.tier, batch.is_candidate, batch.weight)


def rows() -> TokenBatch:
    is_real = torch.arange(10) < LENGTH[:, None]
    token_weight = (is_real / LENGTH[:, None]).float()
    token_weight[:, 0] = 0
    return TokenBatch(TOKENS * is_real, LENGTH, token_weight, torch.tensor([1.0, 2.0, 0.5]))


def rankings() -> RankedBatch:
    return RankedBatch(
        prompt=TOKENS[:, :4], prompt_length=torch.tensor([4, 3, 2]), completion=TOKENS[:, 4:].view(3, 2, 3),
        completion_length=torch.tensor([[3, 1], [2, 3], [1, 2]]), tier=torch.tensor([[0, 1], [1, 0], [0, 1]]),
        is_candidate=torch.ones(3, 2, dtype=torch.bool), weight=torch.ones(3),
    )  # fmt: skip


learner = partial(Learner, lr=0.05, steps=10, schedule="constant", device="cpu")


@pytest.mark.parametrize("critic", ["reward", "policy"])
def test_steps_of_critic_and_reward_leave_the_policy_and_the_reference_to_the_last_bit(folders, critic):
    found = roles(folders, critic=critic)
    judge = rewards_to_train(folders["sft"], ADAPTER, seeds=[0])[0]
    before, of_reference = fingerprint(found.policy), fingerprint(found.reference)
    values, score = found.critic(TOKENS).detach(), sequence_rewards(judge, TOKENS, LENGTH).detach()
    critic_learner, reward_learner, policy_learner = learner(found.critic), learner(judge), learner(found.policy)
    for _ in range(3):
        critic_learner.step(Term(of_values, rows()))
        reward_learner.step(Term(of_rankings, rankings()))
    assert bool((found.critic(TOKENS) - values)[:, 1:].abs().amax() > 1e-3)
    assert bool((sequence_rewards(judge, TOKENS, LENGTH) - score).abs().amax() > 1e-3)
    assert fingerprint(found.policy) == before and fingerprint(found.reference) == of_reference
    moved = found.critic(TOKENS).detach()
    policy_learner.step(Term(of_logprobs, rows()))
    assert fingerprint(found.policy) != before and fingerprint(found.reference) == of_reference
    assert torch.equal(found.critic(TOKENS).detach(), moved)


def test_on_a_shared_trunk_the_same_hash_does_change(folders):
    """So the test above can fail."""
    found = roles(folders, share="trunk", critic="policy")
    before = fingerprint(found.policy)
    with torch.no_grad():
        found.critic.value_head.weight.fill_(0.1)  # a head of zeros sends nothing down
    learner(found.critic).step(Term(of_values, rows()))
    assert fingerprint(found.policy) != before


@pytest.mark.parametrize(("role", "loss"), [("policy", of_logprobs), ("critic", of_values)])
@pytest.mark.parametrize("share", ["adapters", "trunk", "none"])
def test_parts_of_any_size_make_the_same_step_of_every_role(folders, share, role, loss):
    """In float64, by rows and by tokens."""

    def after(**limits: int) -> list[torch.Tensor]:
        found = roles(folders, share=share, critic="policy")
        model = found.critic if share == "trunk" else getattr(found, role)
        if role == "critic":
            torch.nn.init.ones_(found.critic.value_head.weight)
        held = learner(model.double(), **limits)
        held.step(Term(loss, rows()))
        return [p.detach() for p in held.trained.values()]

    whole = after()
    for limits in ({"micro_batch": 1}, {"micro_tokens": 14}):
        for one, other in zip(after(**limits), whole, strict=True):
            assert_close(one, other)


def test_what_a_critic_began_with_does_not_learn_beside_it(folders):
    """The reward's own head was copied; only the copy may move."""
    found = roles(folders)
    assert {name.split(".")[0] for name in learner(found.critic).trained} == {"trunk", "value_head"}
    assert all("lora_" in name or name.startswith("value_head") for name in learner(found.critic).trained)


# ------------------------------------------------------------------------------------------------ other runs


def test_members_of_an_ensemble_share_their_base_and_have_heads_and_adapters_of_their_own(folders):
    one, two = rewards_to_train(folders["sft"], ADAPTER, seeds=[0, 1])
    shared = addresses(one) & addresses(two)
    frozen = {p.data_ptr() for p in one.parameters() if not p.requires_grad}
    assert shared and shared <= frozen
    assert not torch.equal(one.get_base_model().score.weight, two.get_base_model().score.weight)
    alone = rewards_to_train(folders["sft"], ADAPTER, seeds=[1])[0]
    assert_close(sequence_rewards(two, TOKENS, LENGTH), sequence_rewards(alone, TOKENS, LENGTH).detach())
    assert_close(
        scores(two, rankings())[0, 0], sequence_rewards(alone, flat_rows(rankings()).tokens[:1], torch.tensor([7]))[0].detach()
    )


def test_without_a_critic_policy_reference_and_rewards_stand_on_one_base_too(folders):
    together = partial(
        load_roles_without_critic, model=folders["sft"], reference="", rewards=[folders["reward"]], seed=seed,
        device=torch.device("cpu"), template="plain",
    )  # fmt: skip
    acting, reference, scorers = together(adapter=ADAPTER)
    assert addresses(reference) <= addresses(acting)
    alone, other, _ = together(adapter=Adapter())
    assert not addresses(alone) & addresses(other)
    with torch.no_grad():
        assert_close(acting(TOKENS).logits, alone(TOKENS).logits)
    assert list(scorers) == [folders["reward"]]
