"""A tokenizer and a small Llama from scratch: what the embedded world and the small real studies start from.

Byte-level BPE (every text has tokens, none is unknown), digits one by one so that sums can be learned, and one token per
role. The template is the shortest that keeps roles apart: ``<|user|>{question}<|assistant|>{answer}<|eos|>``.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from prefloop.errors import ConfigError, DataError
from prefloop.models.folder import UNREADABLE, first_line, kind_of, quiet, refuse_without_tokenizer, where_from

PAD, BOS, EOS = "<|pad|>", "<|bos|>", "<|eos|>"
ROLES = ("<|user|>", "<|assistant|>", "<|system|>")
N_BYTES = 256
PAD_NAMES = ("<|pad|>", "<pad>", "[PAD]", "<|finetune_right_pad_id|>", "<|vision_pad|>", "<|reserved_special_token_0|>")
NO_UTF8 = 0xFF  # a byte that occurs in no UTF-8 text

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def train_tokenizer(lines: Iterable[str], *, vocab_size: int, folder: str | Path | None = None) -> PreTrainedTokenizerFast:
    """Byte-level BPE learned from ``lines``; the same lines give the same tokenizer. Saved in ``folder`` when given.

    The vocabulary may come out smaller than ``vocab_size`` when the text holds fewer distinct pairs.
    """
    specials = [PAD, BOS, EOS, *ROLES]
    if vocab_size < N_BYTES + len(specials):
        raise ConfigError(
            f"a byte-level vocabulary of {vocab_size} tokens is too small\n"
            f"  it holds {N_BYTES} bytes and {len(specials)} special tokens before the first merge; give {N_BYTES + len(specials)} or more"
        )
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=specials,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(lines, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        extra_special_tokens=list(ROLES),
        clean_up_tokenization_spaces=False,
        padding_side="right",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    if folder is not None:
        tokenizer.save_pretrained(str(folder))
    return tokenizer


def new_llama(
    tokenizer: PreTrainedTokenizerBase, *, width: int, layers: int, heads: int, kv_heads: int, context: int, seed: int
) -> nn.Module:
    """A Llama with random weights (a function of ``seed`` alone) for the tokenizer's vocabulary."""
    config = llama_config(tokenizer, width=width, layers=layers, heads=heads, kv_heads=kv_heads, context=context)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(do_sample=True, **special_tokens(tokenizer))
    return model.eval()


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """As the configs of a model name them."""
    return {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def llama_config(
    tokenizer: PreTrainedTokenizerBase, *, width: int, layers: int, heads: int, kv_heads: int, context: int
) -> LlamaConfig:
    """Tied embeddings and SwiGLU layers of 8/3 the width."""
    if width % heads or (width // heads) % 2 or heads % kv_heads:
        raise ConfigError(
            f"no Llama has width {width}, {heads} heads and {kv_heads} key-value heads\n"
            f"  the width must be a multiple of 2 x heads (rotary positions turn pairs), and heads a multiple of kv_heads"
        )
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=-(-8 * width // (3 * 16)) * 16,  # 8/3 of the width, rounded up to a multiple of 16
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        **special_tokens(tokenizer),
    )


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, with a padding token that is not EOS where the vocabulary has one to spare.

    Nothing is added to the vocabulary, so the model's size stays. Padding never matters to us (rows are masked by
    length), but transformers finds the last token of a text by it.
    """
    quiet()
    refuse_without_tokenizer(source)
    if not Path(source).is_dir():
        kind_of(source)
    try:
        tokenizer = tokenizer_class(Path(source)).from_pretrained(str(source), trust_remote_code=False)
    except UNREADABLE as error:
        raise DataError(f"the tokenizer of {source} cannot be read\n  {first_line(error)}\n  {where_from(source)}") from None
    if tokenizer.eos_token_id is None:
        raise DataError(
            f"the tokenizer of {source} has no end-of-sequence token, so no answer could end\n"
            f"  special tokens found: {', '.join(tokenizer.all_special_tokens) or 'none'}\n"
            f"  set eos_token in tokenizer_config.json to the token that ends a text in the model's training data"
        )
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        tokenizer.pad_token = spare_token(tokenizer) or tokenizer.eos_token
    tokenizer.padding_side = "right"
    return tokenizer


def tokenizer_class(folder: Path) -> Any:
    """For a folder that says its tokenizer.json is all there is, just that.

    Else AutoTokenizer, which for some architectures (Qwen2) rebuilds any tokenizer as the architecture's usual one.
    """
    try:
        declared = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")).get("tokenizer_class")
    except (OSError, ValueError, AttributeError):
        return AutoTokenizer  # from the hub, or with something to say about what is wrong
    return PreTrainedTokenizerFast if declared == "TokenizersBackend" else AutoTokenizer


def spare_token(tokenizer: Any) -> str | None:
    """A token of the vocabulary that stands in no text: a reserved one, the unknown token, or a byte outside UTF-8."""
    vocabulary = tokenizer.get_vocab()
    taken = {tokenizer.eos_token, tokenizer.bos_token}
    byte_level = chr(NO_UTF8) if chr(NO_UTF8) in vocabulary and "Ġ" in vocabulary else None
    for token in (*PAD_NAMES, tokenizer.unk_token, f"<0x{NO_UTF8:02X}>", byte_level):
        if token in vocabulary and token not in taken:
            return token
    return None


def refuse_foreign_tokenizer(model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """A tokenizer may know fewer tokens than the model has rows, never more."""
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise DataError(
            f"the tokenizer has {len(tokenizer)} tokens and the model {rows}: they do not belong together\n"
            f"  tokenizer: {tokenizer.name_or_path or 'unnamed'}\n"
            f"  model:     {model.config.name_or_path or 'unnamed'}\n"
            f"  load both from the same folder"
        )


def refuse_other_tokenizer(
    folder: str, policy_folder: str, setting: str, hint: str = "name a model made from the same base"
) -> None:
    """Two models that read the same tokens must mean the same by them; token numbers alone would not show it."""
    own, given = (load_tokenizer(source).get_vocab() for source in (policy_folder, folder))
    if own == given:
        return
    differing = len(own.items() ^ given.items())
    raise ConfigError(
        f"{setting} needs {folder} and the policy {policy_folder} to share a tokenizer, and they do not: "
        f"{len(given)} and {len(own)} tokens, {differing} entries differ\n  {hint}"
    )
