"""PPO on one base, on one trunk, and with networks of its own: what is asked for, what is trained, and what is left behind."""

import json
from pathlib import Path

import pytest
import torch

from prefloop.errors import ConfigError
from prefloop.methods import ppo
from prefloop.methods.ppo import PPOConfig
from prefloop.models.load import load_policy
from prefloop.models.scorer import load_scorer
from tests.helpers import assert_close
from tests.methods.toy import history, ppo_settings, run_ppo, run_reward, run_sft, toy

TOKENS = torch.tensor([[2, 3, 2, 3, 1], [3, 4, 2, 2, 1]])
ON_ONE_BASE = {"share": "adapters", "critic": "policy", "optim": {"lr": 1e-2}}


def config(**settings) -> PPOConfig:
    return PPOConfig.of(**ppo_settings(Path("toy"), **settings))


def said(folder: Path | str) -> torch.Tensor:
    with torch.no_grad():
        return load_policy(str(folder))(TOKENS).logits


@pytest.fixture(scope="module")
def adapters(tmp_path_factory) -> dict[str, Path]:
    """An SFT adapter, a reward that is an adapter on it, and a run of PPO that starts from the first and learns from the second."""
    made = tmp_path_factory.mktemp("adapters")
    small = {"adapter": {"rank": 2}, "optim": {"lr": 1e-2}}
    run_sft(made / "sft", epochs=1, **small)
    run_reward(made / "reward", model=made / "sft" / "model", **small)
    return {"sft": made / "sft" / "model", "reward": made / "reward" / "model", "out": made}


def test_one_key_says_what_is_shared_and_the_former_name_is_still_read():
    assert (config().share, config().critic) == ("none", "reward")
    assert config(critic="trunk") == config(share="trunk") == config(share="trunk", critic="policy")
    assert config(share="trunk").critic == "policy"  # whose trunk it is
    again = PPOConfig.of(**config(share="adapters", adapter={"rank": 2}).model_dump())
    assert again.adapter.rank == 2  # a whole configuration can be read again


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"share": "trunk", "critic": "reward"}, "share = trunk makes the critic a head on the policy's trunk"),
        ({"share": "none", "adapter": {"rank": 2}}, "adapter belongs to share = adapters; share = none trains whole networks"),
        ({"share": "adapters", "adapter": {"rank": 0}}, "share = adapters needs adapter.rank of at least 1"),
        ({"share": "half"}, "share: input should be 'adapters', 'trunk' or 'none'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        config(**settings)


def test_a_run_on_one_base_leaves_an_adapter_that_answers_as_the_policy_did(adapters):
    """Its base is the SFT adapter's folder, which itself has a base: the chain is read whole. The run itself compares, too."""
    out = adapters["out"] / "ppo"
    run_ppo(out, model=adapters["sft"], reward=adapters["reward"], **{**ON_ONE_BASE, "critic": "reward"})
    base = json.loads((out / "model" / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert base == str(adapters["sft"])
    assert not (out / "model" / "model.safetensors").exists()
    moved = (said(out / "model") - said(adapters["sft"])).abs().max()
    assert float(moved) > 1e-3
    line = history(out)[0]
    assert_close(torch.tensor([line["objective/kl"], line["val/ratio"]]), [0.0, line["val/ratio"]])
    assert abs(line["objective/kl_k3"]) < 1e-6  # round 0: base + SFT adapter is the reference, and nothing has moved yet
    assert history(out)[1]["objective/kl_k3"] > 1e-6
    assert line["critic/lr"] > 0 and "critic/grad_norm" in line


def test_rewards_on_the_base_are_those_of_the_reward_model_alone(adapters, monkeypatch):
    seen = []

    def watched(samples, score, *given, plain=ppo.credit, **settings):
        seen.append(samples)
        return plain(samples, score, *given, **settings)

    monkeypatch.setattr(ppo, "credit", watched)
    out = adapters["out"] / "rewards"
    run_ppo(out, model=adapters["sft"], reward=adapters["reward"], rounds=1, **ON_ONE_BASE)
    alone = torch.tensor(load_scorer(str(adapters["reward"]))(seen[0].prompts, seen[0].completions))
    assert_close(torch.tensor(history(out)[0]["objective/scores"]), alone.mean())


def test_text_and_an_average_go_with_one_base_too(tmp_path):
    text = {"ptx": 0.3, "text": toy() / "corpus.txt", "ptx_rows": 4, "ptx_block": 8}
    summary = run_ppo(tmp_path, **ON_ONE_BASE, **text, ema=0.5)
    assert summary["weights"] == "exponential moving average"
    assert all("of_text/loss" in line for line in history(tmp_path))
    assert float((said(tmp_path / "model") - said(toy() / "sft" / "model")).abs().max()) > 1e-4


def test_a_critic_cannot_begin_from_a_reward_that_is_no_adapter_on_the_base(tmp_path):
    with pytest.raises(ConfigError, match="share=adapters with critic=reward needs a reward model that is an adapter"):
        run_ppo(tmp_path, share="adapters")


def test_a_run_that_would_not_fit_is_refused_before_anything_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(ppo, "load_roles", lambda *given, **settings: pytest.fail("loaded"))
    with pytest.raises(ConfigError, match=r"more memory than memory=1e-06 GiB(.|\n)*weights 0"):
        run_ppo(tmp_path, memory=1e-6)
