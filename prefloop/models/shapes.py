"""How large a model is, from its config alone: no weight is read, none is made.

Numbers are counted on modules without storage (torch's meta device). What a forward pass keeps for its backward pass is
reckoned from the widths: in a layer about 12 times the hidden size and 4 times the inner size for every token, fitted to
what autograd keeps of a Llama and a GPT-2 (docs/performance.md). What it makes besides and lets go of again (rotations, sums,
an adapter's products) is counted from what the allocator was asked for.
"""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig
from transformers.pytorch_utils import Conv1D

from prefloop.models.adapters import base_of
from prefloop.models.folder import UNREADABLE, first_line, kind_of, quiet

FLOAT = 4  # bytes
OF_HIDDEN, OF_INNER = 12, 4  # what a layer keeps of a token, in hidden and inner sizes
PASSING = (13, 0)  # what it makes of a token and lets go of again
PASSING_ADAPTED = (30, 6)  # the same with an adapter on every linear layer


class Shape(NamedTuple):
    parameters: int
    linear: int  # the sum of in + out over linear layers that an adapter may sit on
    layers: int
    width: int
    inner: int
    keys: int  # keys or values of a token, in a layer
    vocabulary: int

    @property
    def kept_of_a_token(self) -> int:
        """Bytes that a forward pass keeps of every token for its backward pass."""
        return FLOAT * self.layers * (OF_HIDDEN * self.width + OF_INNER * self.inner)

    def passing_of_a_token(self, has_adapter: bool) -> int:
        """Bytes that come and go in a forward pass with every token."""
        of_hidden, of_inner = PASSING_ADAPTED if has_adapter else PASSING
        return FLOAT * self.layers * (of_hidden * self.width + of_inner * self.inner)

    def adapter(self, rank: int) -> int:
        """Numbers of an adapter on every linear layer."""
        return rank * self.linear


def shape_of(source: str | Path) -> Shape:
    """The shape of a model folder, an adapter folder (of its base), or a model on the hub."""
    while kind_of(source) == "adapter":
        source = base_of(source)
    file = Path(source) / "config.json"
    return measured(str(source), file.read_text(encoding="utf-8") if file.is_file() else "")


@cache
def measured(source: str, content: str) -> Shape:
    """``content`` of the config file, so that a folder written anew is measured anew."""
    quiet()
    try:
        return shape_of_config(AutoConfig.from_pretrained(source, trust_remote_code=False))
    except UNREADABLE as error:
        raise LookupError(first_line(error)) from None  # whoever reads the weights says what is wrong with the folder


def shape_of_config(whole: PreTrainedConfig) -> Shape:
    """The shape of the model a config describes."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(whole)
    config = whole.get_text_config()
    head = model.get_output_embeddings()
    maps = [tuple(m.weight.shape) for m in model.modules() if isinstance(m, nn.Linear | Conv1D) and m is not head]
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * config.hidden_size
    return Shape(
        parameters=sum(p.numel() for p in model.parameters()),
        linear=sum(a + b for a, b in maps),
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        inner=inner,
        keys=heads * size,
        vocabulary=config.vocab_size,
    )
