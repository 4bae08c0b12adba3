"""Model folders in and out: plain Hugging Face folders, safetensors only, no code of others is run.

A policy is an ``AutoModelForCausalLM``; a reward model an ``AutoModelForSequenceClassification`` with one label, a head
named ``score`` and a ``pad_token_id``, so that transformers reads the same score as we do. What a model needs to know
beside its weights is in its config: ``prefloop_reward_shift`` is subtracted from every score, and ``prefloop_encoding``
holds the template and the limits it was trained with. An adapter folder is read as base + adapter, merged, so that what
continues from it, or is measured against it, never starts from the bare base.
"""

import json
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from prefloop.config import Adapter
from prefloop.errors import ConfigError, DataError, RunError
from prefloop.models.adapters import (
    adapter_file,
    adapter_weights,
    base_of,
    is_adapted,
    load_merged,
    named,
    task_of,
    twin,
    with_adapter,
)
from prefloop.models.encode import Encoder
from prefloop.models.folder import UNREADABLE, first_line, kind_of, quiet, read_config, where_from
from prefloop.models.heads import all_logits, at_rest, hidden_states, unwrapped
from prefloop.models.tokenizer import load_tokenizer
from prefloop.records import Prompt

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
ROUNDINGS = 256  # that may separate two readings of one model


def load_policy(source: str | Path, *, device: torch.device | str = "cpu", dtype: str = "float32") -> PreTrainedModel:
    """A causal language model, in eval mode. ``generate`` on it draws from its own distribution, nothing filtered."""
    kind = kind_of(source)
    if kind == "adapter":
        return ready(load_merged(source, lambda base: load_policy(base, dtype=dtype)), device)
    if kind == "model":
        refuse_reward_model(Path(source))
    model = read(AutoModelForCausalLM, source, dtype)
    model.generation_config = own_distribution(model)
    return ready(model, device)


def policy_to_train(source: str | Path, adapter: Adapter, *, seed: int, device: torch.device | str = "cpu") -> Any:
    """A policy whose trainable weights are its own, or those of a new LoRA adapter that changes nothing yet."""
    policy = load_policy(source, device=device)
    if adapter.rank == 0:
        return policy
    return with_adapter(policy, rank=adapter.rank, alpha=adapter.alpha, targets=adapter.targets, seed=seed).to(policy.device)


def load_reward(source: str | Path, *, device: torch.device | str = "cpu", dtype: str = "float32") -> PreTrainedModel:
    """A reward model, in eval mode."""
    if kind_of(source) == "adapter":
        return ready(load_merged(source, lambda base: new_reward(base, seed=0, dtype=dtype)), device)
    model = read(AutoModelForSequenceClassification, source, dtype)
    if model.config.num_labels != 1 or not isinstance(getattr(model, "score", None), nn.Module):
        raise DataError(
            f"{source} is not a reward model: it has {model.config.num_labels} labels"
            f"{'' if hasattr(model, 'score') else ' and no head named score'}\n"
            f"  a reward model is an AutoModelForSequenceClassification with one label and a head named score"
        )
    return ready(model, device)


def new_reward(policy: str | Path, *, seed: int, device: torch.device | str = "cpu", dtype: str = "float32") -> PreTrainedModel:
    """A reward model with the policy's trunk and a new head, N(0, 1/(d+1)) (Stiennon et al. 2020), a function of ``seed``."""
    return ready(with_score(load_policy(policy, dtype=dtype), policy, seed=seed), device)


def rewards_to_train(
    policy: str | Path, adapter: Adapter, *, seeds: Sequence[int], device: torch.device | str = "cpu"
) -> list[Any]:
    """New reward models that learn all their weights, or those of an adapter and the head on one base that all share."""
    if adapter.rank == 0:
        return [new_reward(policy, seed=seed, device=device) for seed in seeds]
    trunk = load_policy(policy, device=device)
    shape = {"rank": adapter.rank, "alpha": adapter.alpha, "targets": adapter.targets}
    models = [with_adapter(with_score(twin(trunk), policy, seed=seed), **shape, seed=seed) for seed in seeds]
    return [ready(model, device) for model in models]


def with_score(trunk: Any, source: str | Path, *, seed: int) -> PreTrainedModel:
    """A reward model on the trunk itself, no copy of it; ``source`` is where the trunk came from."""
    tokenizer = load_tokenizer(source)
    if tokenizer.pad_token_id == tokenizer.eos_token_id:
        raise ConfigError(
            f"the tokenizer of {source} has no token that could pad but EOS, so others would read the reward at the wrong place\n"
            f"  add one: tokenizer.add_special_tokens({{'pad_token': '<pad>'}}); model.resize_token_embeddings(len(tokenizer)); save both"
        )
    config = AutoConfig.for_model(
        **{**trunk.config.to_dict(), "num_labels": 1, "pad_token_id": tokenizer.pad_token_id, "architectures": None}
    )
    config.prefloop_reward_shift = 0.0
    try:
        with torch.device("meta"):  # its own weights are never made
            model = AutoModelForSequenceClassification.from_config(config)
    except ValueError:
        raise ConfigError(
            f"transformers knows no sequence classifier for the architecture of {source} ({config.model_type})\n"
            f"  a reward model needs one; start from another architecture"
        ) from None
    setattr(model, model.base_model_prefix, trunk.base_model)
    width = model.score.in_features
    head = torch.randn(1, width, generator=torch.Generator().manual_seed(seed)) / math.sqrt(width + 1)
    model.score.weight = nn.Parameter(head.to(trunk.device, trunk.dtype))
    return named(model, source)


def ready(model: Any, device: torch.device | str) -> PreTrainedModel:
    """On its device, dropout off."""
    return model.to(pick_device(device)).eval()


def read(cls: Any, source: str | Path, dtype: str) -> PreTrainedModel:
    """from_pretrained with the errors people meet explained, and no weight invented in silence."""
    quiet()
    if dtype not in DTYPES:
        raise ConfigError(f"there is no dtype {dtype!r}\n  dtypes: {', '.join(DTYPES)}")
    try:
        with torch.random.fork_rng(devices=[]):  # weights that a folder lacks are drawn before we see that they are missing
            model, report = cls.from_pretrained(
                str(source), dtype=DTYPES[dtype], use_safetensors=True, trust_remote_code=False, output_loading_info=True
            )
    except UNREADABLE as error:
        raise DataError(f"the model {source} cannot be read\n  {first_line(error)}\n  {where_from(source)}") from None
    if lacking := sorted(report["missing_keys"]):
        kind = "reward model" if cls is AutoModelForSequenceClassification else "language model"
        raise DataError(
            f"{source} lacks weights a {kind} needs: {', '.join(lacking[:4])}{f' and {len(lacking) - 4} more' if len(lacking) > 4 else ''}\n"
            f"  its config says {', '.join(model.config.architectures or ['nothing about its architecture'])}\n"
            + (
                "  train a reward model from it with prefloop reward"
                if kind == "reward model"
                else "  name the folder of a causal language model"
            )
        )
    return on_its_own_memory(model)


def on_its_own_memory(model: PreTrainedModel) -> PreTrainedModel:
    """Weights mapped from a file begin wherever its header ends, and there matrix products round otherwise."""
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()
    return model


def refuse_reward_model(folder: Path) -> None:
    """With tied embeddings a classifier's folder would load as a language model without a word."""
    architectures = read_config(folder).get("architectures") or []
    if any("SequenceClassification" in str(name) for name in architectures):
        raise DataError(
            f"{folder} is a reward model ({architectures[0]}), a language model is needed here\n  give the folder of a policy"
        )


def own_distribution(model: PreTrainedModel) -> GenerationConfig:
    """Sampling at temperature 1 without filters, with the model's own special tokens."""
    given = model.generation_config
    ids = {name: getattr(given, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return GenerationConfig(do_sample=True, temperature=1.0, top_k=0, top_p=1.0, **ids)


def pick_device(device: torch.device | str) -> torch.device:
    """``auto`` takes a GPU where there is one."""
    if str(device) != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def context_length(model: nn.Module) -> int | None:
    """Tokens a model can read at once; None where nothing limits it."""
    return getattr(unwrapped(model).config.get_text_config(), "max_position_embeddings", None)


def count_parameters(model: nn.Module) -> int:
    """Numbers that make up the model, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


# ------------------------------------------------------------------------------------------------ saving


def save_model(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    folder: str | Path,
    *,
    card: dict[str, Any],
    encoder: Encoder | None = None,
) -> Path:
    """A plain Hugging Face folder with a model card, written beside its place and moved there when it is complete.

    ``card`` is what README.md tells about the making. ``encoder`` leaves its template and limits in the config, so that
    whoever scores with the model renders text as it was trained on.
    """
    folder = Path(folder)
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write_folder(model, tokenizer, partial, card, encoder)
        for path in [*partial.iterdir(), partial]:
            flush(path)
        replace_folder(partial, folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise RunError(
            f"the model could not be written to {folder}\n  {error}\n  what was there before is untouched; make room, or choose another --out"
        ) from None
    return folder


def write_folder(
    model: Any, tokenizer: PreTrainedTokenizerBase, folder: Path, card: dict[str, Any], encoder: Encoder | None
) -> None:
    quiet()
    adapter_only = {"save_embedding_layers": False} if is_adapted(model) else {}  # the vocabulary never grows
    model.save_pretrained(str(folder), **adapter_only)
    tokenizer.save_pretrained(str(folder))
    config = unwrapped(model).config.to_dict() if is_adapted(model) else read_config(folder)
    if encoder is not None:
        limits = {"max_prompt": encoder.max_prompt, "max_completion": encoder.max_completion}
        config["prefloop_encoding"] = {"template": encoder.template, **limits}
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True, default=str) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(model_card(model, card, encoder), encoding="utf-8")


def model_card(model: nn.Module, card: dict[str, Any], encoder: Encoder | None) -> str:
    """README.md: what made the model, with its figures, and how to load it."""
    is_reward = is_reward_model(model)
    auto = "AutoModelForSequenceClassification" if is_reward else "AutoModelForCausalLM"
    told = yaml.safe_dump(json.loads(json.dumps(card, default=str)), sort_keys=False, allow_unicode=True).rstrip()
    example = ""
    if encoder is not None:
        shown = json.dumps(encoder.render(Prompt.of("Hello")), ensure_ascii=False)
        example = f'Prompts are rendered with the template `{encoder.template}`; "Hello" becomes `{shown}`.\n\n'
    loader = (
        "PEFT adapter; `prefloop merge` folds it into its base." if is_adapted(model) else f"Load it with `transformers.{auto}`."
    )
    return (
        f"---\nlibrary_name: {'peft' if is_adapted(model) else 'transformers'}\n"
        f"pipeline_tag: {'text-classification' if is_reward else 'text-generation'}\ntags: [prefloop]\n---\n\n"
        f"# {'Reward model' if is_reward else 'Language model'} made with prefloop\n\n{loader}\n\n{example}"
        f"```yaml\n{told}\n```\n"
    )


def flush(path: Path) -> None:
    """To the disk, not only to its cache."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_folder(new: Path, folder: Path) -> None:
    """``new`` takes the place of ``folder``; at no moment is neither there under a name that tells what it is."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    flush(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def verify_saved(model: nn.Module, folder: str | Path, tokens: Tensor) -> None:
    """Read the folder back and compare: every weight bit for bit, and what the model answers to ``tokens`` (B T).

    The answers may differ by rounding: on some devices it depends on where the weights lie, and merging an adapter rounds
    its product before it is added.
    """
    parameter = next(model.parameters())
    dtype = next(name for name, value in DTYPES.items() if value == parameter.dtype)
    again = (load_reward if is_reward_model(model) else load_policy)(folder, device=parameter.device, dtype=dtype)
    kept, saved = (
        (adapter_weights(model), adapter_file(folder)) if is_adapted(model) else (model.state_dict(), again.state_dict())
    )
    if wrong := sorted(name for name in kept.keys() | saved.keys() if not same(kept.get(name), saved.get(name))):
        raise RunError(
            f"the model saved in {folder} has other weights than the one in memory: {', '.join(wrong[:4])}\n  do not use the folder"
        )
    tokens = tokens.to(parameter.device)
    said, expected = answers(again, tokens), answers(model, tokens)
    gap, allowed = (said - expected).abs(), ROUNDINGS * torch.finfo(expected.dtype).eps * (1 + expected.abs())
    if not bool((gap <= allowed).all()):
        raise RunError(
            f"the model saved in {folder} answers differently from the one in memory, by up to {float(gap.max()):.3g}\n"
            f"  do not use the folder; its weights are right, so its config misses something"
        )


def answers(model: nn.Module, tokens: Tensor) -> Tensor:
    """Logits of a policy (B T V), scores of a reward model at every position (B T 1), dropout off."""
    with at_rest(model):
        return unwrapped(model).score(hidden_states(model, tokens)) if is_reward_model(model) else all_logits(model, tokens)


def same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is not None and b is not None and torch.equal(a.cpu(), b.cpu())


def is_reward_model(model: nn.Module) -> bool:
    return hasattr(unwrapped(model), "score")


def merge(adapter: str | Path, out: str | Path) -> Path:
    """An adapter folder (policy or reward model) as a plain model folder that needs nothing but transformers."""
    if kind_of(adapter) != "adapter":
        raise DataError(f"{adapter} holds a whole model, no adapter: there is nothing to merge\n  use the folder as it is")
    is_reward = task_of(adapter) == "SEQ_CLS"
    model = load_reward(adapter) if is_reward else load_policy(adapter)
    tokenizer = load_tokenizer(adapter)
    folder = save_model(model, tokenizer, out, card={"method": "merge", "adapter": str(adapter), "base": base_of(adapter)})
    verify_saved(model, folder, torch.arange(min(8, len(tokenizer)))[None, :])
    return folder
