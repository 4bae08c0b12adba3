"""Rules an answer should keep, each judged by itself (Sparrow: Glaese et al. 2022, arXiv 2209.14375).

A YAML file of rules:

    digits: {text: Do not use digits., weight: 1.0}
    advice: {text: Do not give medical advice., weight: 2.0}

What people say about them are ratings: question is the rule's id, scale 0 to 1, value 1 where the rule is broken; whoever is
unsure rates nothing. A classifier of (rule, conversation, answer) learns from them (``methods/rules.py``), and the reward is

    R(x, y) = preference(x, y) - sum over rules of weight_k P(y breaks k | x, y)

The paper does not say how its two parts are weighed and normalised; here the weights are stated, one for each rule.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from prefloop.config import Config, parse, read_yaml
from prefloop.errors import ConfigError
from prefloop.records import Message, Prompt

RULES_FILE = "rules.yaml"  # beside the weights of a rule model


class RuleConfig(Config):
    """One rule."""

    text: str = Field(description="the rule in words, as the classifier reads it")
    weight: float = Field(1.0, ge=0, description="what breaking it costs, in units of the reward")


class Rule(NamedTuple):
    """A rule by its id."""

    id: str
    text: str
    weight: float


def read_rules(path: str | Path) -> list[Rule]:
    """The rules of a YAML file, in its order."""
    written = read_yaml(Path(path))
    if not written:
        raise ConfigError(f"{path} holds no rule\n  write one a line: name: {{text: Do not use digits., weight: 1.0}}")
    rules = []
    for name, value in written.items():
        if not isinstance(value, dict):
            raise ConfigError(f"{path}: the rule {name} is {value!r:.60}\n  write {name}: {{text: ..., weight: 1.0}}")
        rule = parse(RuleConfig, value, where=f"{path}, rule {name}")
        rules.append(Rule(str(name), rule.text, rule.weight))
    return rules


def under(rule: Rule, prompt: Prompt) -> Prompt:
    """The conversation with the rule before it: what the classifier is asked."""
    return Prompt(messages=(Message(role="system", content=rule.text + "\n"), *prompt.messages))


def chance(logit: float) -> float:
    """sigmoid, without overflow."""
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))


def penalty(broken: Sequence[float], rules: Sequence[Rule]) -> float:
    """sum of weight_k P(k is broken)."""
    return math.fsum(rule.weight * p for rule, p in zip(rules, broken, strict=True))
