"""Prefloop teaches a language model from people's preferences.

``from prefloop import sample`` and the like work without cost until the name is first used: the table below says where
each name of the public Python API lives, and nothing is imported before it is asked for. docs/api.md lists it.
"""

from typing import Any

__version__ = "0.1.0"

API = {
    # records and files
    "Prompt": "prefloop.records:Prompt",
    "Completion": "prefloop.records:Completion",
    "Ranking": "prefloop.records:Ranking",
    "Rating": "prefloop.records:Rating",
    "Demonstration": "prefloop.records:Demonstration",
    "Group": "prefloop.records:Group",
    "read_groups": "prefloop.data.read:read_groups",
    "read_prompts": "prefloop.data.read:read_prompts",
    "read_demonstrations": "prefloop.data.read:read_demonstrations",
    "write_groups": "prefloop.data.write:write_groups",
    "write_prompts": "prefloop.data.write:write_prompts",
    "write_demonstrations": "prefloop.data.write:write_demonstrations",
    "World": "prefloop.world:World",
    # a model in a role
    "load_tokenizer": "prefloop.models.load:load_tokenizer",
    "load_policy": "prefloop.models.load:load_policy",
    "load_reward": "prefloop.models.load:load_reward",
    "load_scorer": "prefloop.models.scorer:load_scorer",
    "Encoder": "prefloop.models.encode:Encoder",
    "sample": "prefloop.models.sampling:sample",
    # losses and estimators on tensors
    "ranking_loss": "prefloop.ops.ranking:ranking_loss",
    "gae": "prefloop.ops.advantages:gae",
    "policy_loss": "prefloop.ops.policy:policy_loss",
    "value_loss": "prefloop.ops.policy:value_loss",
    "dpo_loss": "prefloop.ops.preference:dpo_loss",
    "rrhf_loss": "prefloop.ops.rrhf:rrhf_loss",
    # one call per method
    "pretrain": "prefloop.api:pretrain",
    "sft": "prefloop.api:sft",
    "reward": "prefloop.api:reward",
    "ppo": "prefloop.api:ppo",
    "reinforce": "prefloop.api:reinforce",
    "dpo": "prefloop.api:dpo",
    "kto": "prefloop.api:kto",
    "rrhf": "prefloop.api:rrhf",
    "rules": "prefloop.api:rules",
    "relearn": "prefloop.api:relearn",
}


def __getattr__(name: str) -> Any:
    """A name of the API, imported when it is first used (PEP 562)."""
    if name not in API:
        raise AttributeError(f"module 'prefloop' has no attribute {name!r}; the public names are {', '.join(API)}")
    from importlib import import_module

    module, _, attribute = API[name].partition(":")
    try:
        value = getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("prefloop"):
            raise
        from prefloop.errors import NotInstalled

        raise NotInstalled(error.name, "train", f"prefloop.{name}") from error
    globals()[name] = value  # asked once, then an ordinary attribute
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *API])
