"""The methods as functions, for notebooks and other people's programs: one call, one finished run.

    import prefloop

    sft = prefloop.sft(out="runs/sft", model="runs/base/model", data="demonstrations.jsonl")
    reward = prefloop.reward(out="runs/reward", model=sft.model, data="rankings.jsonl")
    ppo = prefloop.ppo(out="runs/ppo", model=sft.model, reward=reward.model, prompts="prompts.jsonl")

Settings are those of the command line; nested ones are given as dictionaries.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefloop.config import Options
from prefloop.study import config_class


@dataclass(frozen=True)
class Finished:
    """A finished run: its folder and its figures."""

    folder: Path
    summary: dict[str, Any]

    @property
    def model(self) -> str:
        """The folder of the model it made."""
        return str(self.folder / "model")


def call(command: str, out: str | Path, resume: bool, device: str, settings: dict[str, Any]) -> Finished:
    """Run a command with settings from Python."""
    cls, main = config_class(command)
    return Finished(Path(out), main(cls.of(**settings), Options(out=Path(out), resume=resume, device=device)))


def pretrain(*, out: str | Path, resume: bool = False, device: str = "auto", **settings: Any) -> Finished:
    """A tokenizer and a small language model from scratch. Settings: ``PretrainConfig``."""
    return call("pretrain", out, resume, device, settings)


def sft(*, out: str | Path, resume: bool = False, device: str = "auto", **settings: Any) -> Finished:
    """Imitate demonstrations. Settings: ``SFTConfig``."""
    return call("sft", out, resume, device, settings)


def reward(*, out: str | Path, resume: bool = False, device: str = "auto", **settings: Any) -> Finished:
    """Learn a reward from rankings. Settings: ``RewardConfig``."""
    return call("reward", out, resume, device, settings)


def ppo(*, out: str | Path, resume: bool = False, device: str = "auto", **settings: Any) -> Finished:
    """Improve a policy by PPO or PPO-ptx. Settings: ``PPOConfig``."""
    return call("ppo", out, resume, device, settings)


def reinforce(*, out: str | Path, resume: bool = False, device: str = "auto", **settings: Any) -> Finished:
    """Improve a policy by RLOO, GRPO, Dr. GRPO, DAPO or REINFORCE++. Settings: ``ReinforceConfig``."""
    return call("reinforce", out, resume, device, settings)


def dpo(*, out: str | Path, resume: bool = False, device: str = "auto", **settings: Any) -> Finished:
    """Learn from rankings directly by DPO, cDPO, IPO, SimPO or ORPO. Settings: ``DPOConfig``."""
    return call("dpo", out, resume, device, settings)


def kto(*, out: str | Path, resume: bool = False, device: str = "auto", **settings: Any) -> Finished:
    """Learn from single answers called good or bad. Settings: ``KTOConfig``."""
    return call("kto", out, resume, device, settings)


def rrhf(*, out: str | Path, resume: bool = False, device: str = "auto", **settings: Any) -> Finished:
    """Rank answers by their own likelihood and imitate the best. Settings: ``RRHFConfig``."""
    return call("rrhf", out, resume, device, settings)


def rules(*, out: str | Path, resume: bool = False, device: str = "auto", **settings: Any) -> Finished:
    """Learn which answers break which rules. Settings: ``RulesConfig``."""
    return call("rules", out, resume, device, settings)


def relearn(*, out: str | Path, resume: bool = False, device: str = "auto", **settings: Any) -> Finished:
    """Learn the reward again, on the policy's own answers (RLP). Settings: ``RelearnConfig``."""
    return call("relearn", out, resume, device, settings)
