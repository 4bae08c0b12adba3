"""LoRA adapters (PEFT): put on a model, read from a folder, merged into their base.

The base an adapter belongs to may itself be a base with an adapter: reading follows the chain, so a policy that continues
from an SFT adapter is never put on the bare model by mistake.
"""

import copy
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from prefloop.errors import ConfigError, DataError, NotInstalled
from prefloop.models.folder import UNREADABLE, first_line


def is_adapted(model: nn.Module) -> bool:
    """Whether an adapter is on the model."""
    return hasattr(model, "get_base_model")


def twin(model: Any) -> Any:
    """Another model of the same weights: its modules are copies, its tensors are the very same ones.

    An adapter on one leaves the other alone, as long as what they share stays frozen.
    """
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, shared)


def with_adapter(
    model: PreTrainedModel, *, rank: int, alpha: float, targets: str | Sequence[str] = "all-linear", seed: int
) -> Any:
    """The model with a LoRA adapter that changes nothing yet; only the adapter (and a reward model's head) will learn."""
    peft = import_peft()
    is_reward = hasattr(model, "score")
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=0.0,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),  # GPT-2 keeps its weights transposed
        target_modules=targets if isinstance(targets, str) else list(targets),
        modules_to_save=["score"] if is_reward else None,
        task_type="SEQ_CLS" if is_reward else "CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            with peft_in_peace():
                return peft.get_peft_model(model, config)
        except ValueError as error:
            linear = sorted({name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, nn.Linear)})
            raise ConfigError(
                f"no adapter fits: {first_line(error)}\n  targets given: {targets}\n  linear layers of the model: {', '.join(linear)}"
            ) from None


def load_merged(folder: str | Path, load_base: Callable[[str], PreTrainedModel]) -> PreTrainedModel:
    """Base and adapter as one plain model, all of whose weights can learn, as those of any other."""
    adapted = read_adapter(folder, load_base(base_of(folder)))
    return named(adapted.merge_and_unload(), folder).requires_grad_(True)  # PEFT had frozen the base


def named(model: Any, source: str | Path) -> Any:
    """The model knows where it came from: an adapter put on it notes this as its base, not the base's own base."""
    model.name_or_path = model.config._name_or_path = str(source)
    return model


def read_adapter(folder: str | Path, base: PreTrainedModel) -> Any:
    """The adapter of a folder on its base, ready to go on learning, with what the folder knows beside weights."""
    peft = import_peft()
    saved = json.loads(Path(folder, "config.json").read_text()) if Path(folder, "config.json").is_file() else {}
    for name, value in saved.items():
        if name.startswith("prefloop_"):
            setattr(base.config, name, value)
    try:
        with peft_in_peace():
            return peft.PeftModel.from_pretrained(base, str(folder), is_trainable=True)
    except UNREADABLE as error:
        raise DataError(
            f"the adapter {folder} cannot be put on its base\n  {first_line(error)}\n  was the base changed since?"
        ) from None


def adapter_weights(model: nn.Module) -> dict[str, Tensor]:
    """What an adapter folder holds: the adapter's weights, and those of a head that learned with it."""
    return import_peft().get_peft_model_state_dict(model, save_embedding_layers=False)


def adapter_file(folder: str | Path) -> dict[str, Tensor]:
    """The same from the folder."""
    return load_file(str(Path(folder) / "adapter_model.safetensors"))


def is_adapter_on(folder: str | Path, source: str | Path) -> bool:
    """Whether a folder holds an adapter that belongs to the model ``source``, given by the same path or another way to it."""
    if not Path(folder, "adapter_config.json").is_file():
        return False
    return same_folder(base_of(folder), source)


def same_folder(one: str | Path, other: str | Path) -> bool:
    """Whether two names, paths or hub ids, are of one model."""
    return str(one) == str(other) or (Path(one).is_dir() and Path(one).resolve() == Path(other).resolve())


def base_of(folder: str | Path) -> str:
    """The model an adapter belongs to."""
    base = read_adapter_config(folder).get("base_model_name_or_path")
    if not base:
        raise DataError(
            f"{Path(folder) / 'adapter_config.json'} does not say which model the adapter belongs to\n"
            f"  write it there as base_model_name_or_path"
        )
    return str(base)


def task_of(folder: str | Path) -> str:
    """SEQ_CLS for a reward model, CAUSAL_LM for a policy."""
    return str(read_adapter_config(folder).get("task_type"))


def read_adapter_config(folder: str | Path) -> dict[str, Any]:
    path = Path(folder) / "adapter_config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read: {error}\n  an adapter folder holds adapter_config.json and adapter_model.safetensors"
        ) from None
    return config if isinstance(config, dict) else {}


@contextmanager
def peft_in_peace() -> Iterator[None]:
    """PEFT still uses names that transformers is going to drop, and each use warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def import_peft() -> Any:
    try:
        import peft
    except ImportError:
        raise NotInstalled("peft", "train", "an adapter") from None
    return peft
