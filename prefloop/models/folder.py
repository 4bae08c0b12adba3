"""What a model folder holds, and what to say when it is not one."""

import difflib
import json
import re
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import HfApi, try_to_load_from_cache
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from prefloop.errors import DataError

HUB_SECONDS = 10  # to answer
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
OTHER_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.gguf")

UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError)  # what transformers raises on a bad folder

Kind = Literal["model", "adapter", "hub"]


def kind_of(source: str | Path) -> Kind:
    """A folder with a model, a folder with an adapter, or the id of a model on the hub; anything else is explained."""
    folder = Path(source)
    if folder.is_dir():
        if (folder / "adapter_config.json").is_file():
            refuse_without_weights(folder)
            return "adapter"
        if not (folder / "config.json").is_file():
            raise DataError(no_model_in(folder))
        refuse_without_weights(folder)
        return "model"
    if folder.exists():
        raise DataError(
            f"{source} is a file; a model is a folder with config.json and model.safetensors\n  give the folder: {folder.parent}"
        )
    if HUB_ID.fullmatch(str(source)) and ("/" not in str(source) or not folder.parent.is_dir()):
        refuse_unknown_to_the_hub(str(source))
        return "hub"
    raise DataError(missing(folder))


def refuse_unknown_to_the_hub(name: str) -> None:
    """Asked once and briefly: from_pretrained would go on trying for a minute. What is in the cache need not be asked."""
    if isinstance(try_to_load_from_cache(name, "config.json"), str):
        return
    try:
        HfApi().model_info(name, timeout=HUB_SECONDS)
    except Exception as error:  # the errors are those of the client's HTTP library, which is another one every few versions
        raise DataError(f"there is no model {name}: {first_line(error)}\n  {where_from(name)}") from None


def missing(folder: Path) -> str:
    """There is no such folder; is there one with nearly that name?"""
    beside = [path.name for path in folder.parent.iterdir() if path.is_dir()] if folder.parent.is_dir() else []
    near = difflib.get_close_matches(folder.name, beside, n=1)
    hint = (
        f"nearest: {folder.parent / near[0]}"
        if near
        else "a model is a folder with config.json and model.safetensors, or the id of one on the hub"
    )
    return f"there is no model folder {folder}\n  {hint}"


def no_model_in(folder: Path) -> str:
    """The folder exists and holds something else."""
    inside = sorted(path.parent.name for path in folder.glob("*/config.json"))
    hint = f"did you mean {folder / inside[0]}?" if inside else "expected config.json, model.safetensors and a tokenizer"
    return f"{folder} is not a model folder: it has no config.json\n  found: {listing(folder)}\n  {hint}"


def refuse_without_weights(folder: Path) -> None:
    if any(folder.glob("*.safetensors")):
        return
    others = sorted(path.name for pattern in OTHER_WEIGHTS for path in folder.glob(pattern))
    hint = (
        f"{', '.join(others)} cannot be read safely; convert it with transformers' save_pretrained, which writes safetensors"
        if others
        else "copy model.safetensors beside config.json, or make the model again"
    )
    raise DataError(f"the model folder {folder} has no weights (*.safetensors)\n  found: {listing(folder)}\n  {hint}")


def refuse_without_tokenizer(source: str | Path) -> None:
    folder = Path(source)
    if folder.is_dir() and not any((folder / name).is_file() for name in TOKENIZER_FILES):
        if (folder / "model" / "config.json").is_file():
            raise DataError(f"{folder} is a run, not a model\n  did you mean {folder / 'model'}?")
        raise DataError(
            f"the model folder {folder} has no tokenizer\n"
            f"  found: {listing(folder)}\n"
            f"  copy the tokenizer the model was trained with into it (tokenizer.json, tokenizer_config.json)"
        )


def listing(folder: Path, *, most: int = 8) -> str:
    """The first names in a folder."""
    names = sorted(path.name for path in folder.iterdir())
    return (", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")) or "nothing"


def read_config(folder: Path) -> dict[str, Any]:
    """config.json as it is."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / 'config.json'} cannot be read: {error}\n  restore it, or make the model again") from None
    if not isinstance(config, dict):
        raise DataError(
            f"{folder / 'config.json'} must hold an object, it holds a {type(config).__name__}\n  restore it, or make the model again"
        )
    return config


def quiet() -> None:
    """transformers' log to errors only and no progress bars: what it would warn about is checked by us, or beside the point."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def first_line(error: Exception) -> str:
    """What a library said, without the paragraph after it."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


def where_from(source: str | Path) -> str:
    """The next step when a source cannot be read."""
    if Path(source).is_dir():
        return "look into the folder; a damaged copy has to be made again"
    return (
        "there is no folder of that name either; give the path of a model folder, or an id the hub knows (and a way to reach it)"
    )
