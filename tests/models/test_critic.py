"""Values stand beside the token they were formed before, wherever the critic comes from."""

from pathlib import Path

import pytest
import torch

from prefloop.errors import ConfigError
from prefloop.models.critic import load_critic
from prefloop.models.heads import policy_logprobs, sequence_rewards
from prefloop.models.load import load_reward, new_reward, save_model
from prefloop.models.tokenizer import train_tokenizer
from tests.helpers import assert_close
from tests.models.tiny import policy, tokenizer

TOKENS = torch.randint(3, 200, (3, 8), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    made = tmp_path_factory.mktemp("critic")
    base = save_model(policy(), tokenizer(), made / "policy", card={})
    model = new_reward(base, seed=1)
    model.config.prefloop_reward_shift = 0.5
    reward = save_model(model, tokenizer(), made / "reward", card={})
    other = train_tokenizer(["so it goes"], vocab_size=270)
    foreign = save_model(
        new_reward(save_model(policy(vocab_size=len(other)), other, made / "p", card={}), seed=0), other, made / "f", card={}
    )
    return {"policy": base, "reward": reward, "foreign": foreign}


def critic_from(kind: str, folders: dict[str, Path], reward: str = ""):
    return load_critic(kind, policy(), str(folders["policy"]), reward or str(folders["reward"]), seed=0, device="cpu")


@torch.no_grad()
def test_a_critic_from_the_reward_model_begins_as_the_shifted_score_of_the_text_before_each_token(folders):
    values = critic_from("reward", folders)(TOKENS)
    model = load_reward(folders["reward"])
    assert_close(values[:, 0], torch.zeros(3))
    for t in range(1, 8):
        assert_close(values[:, t], sequence_rewards(model, TOKENS[:, :t], torch.full((3,), t)) - 0.5)


@pytest.mark.parametrize("kind", ["policy", "trunk"])
@torch.no_grad()
def test_a_critic_without_a_reward_model_begins_at_zero(folders, kind):
    assert_close(critic_from(kind, folders)(TOKENS), torch.zeros(3, 8))


@torch.no_grad()
def test_rescaling_is_exact_from_the_first_token_on(folders):
    critic = critic_from("reward", folders)
    before = critic(TOKENS)
    critic.rescale(2.0, -3.0)
    assert_close(critic(TOKENS)[:, 1:], 2 * before[:, 1:] - 3)


def test_a_shared_trunk_learns_from_values_and_a_network_of_its_own_leaves_the_policy_alone(folders):
    shared = critic_from("trunk", folders)
    torch.nn.init.ones_(shared.value_head.weight)
    shared(TOKENS).pow(2).sum().backward()
    assert all(parameter.grad is not None for parameter in shared.policy.parameters())
    own = policy()
    separate = load_critic("reward", own, str(folders["policy"]), str(folders["reward"]), seed=0, device="cpu")
    separate(TOKENS).pow(2).sum().backward()
    assert all(parameter.grad is None for parameter in own.parameters())


def test_one_pass_over_a_shared_trunk_gives_the_policys_logprobs_and_the_critics_values(folders):
    shared = critic_from("trunk", folders)
    torch.nn.init.ones_(shared.value_head.weight)
    wanted = torch.ones_like(TOKENS, dtype=torch.bool)
    wanted[:, :3] = False
    logprobs, values = shared.logprobs_and_values(TOKENS, wanted, temperature=0.8)
    assert_close(logprobs, policy_logprobs(policy(), TOKENS, wanted, temperature=0.8))
    assert_close(values, shared(TOKENS) * wanted)


def test_what_has_no_weights_or_another_tokenizer_makes_no_critic(folders):
    with pytest.raises(ConfigError, match="which has no weights"):
        critic_from("reward", folders, "lexicon:words.csv")
    with pytest.raises(ConfigError, match="share a tokenizer"):
        critic_from("reward", folders, str(folders["foreign"]))
