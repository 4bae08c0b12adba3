"""Random numbers that depend on what they are for, not on what was drawn before.

A seed is derived from the run's seed and a key such as ``("sample", round)``. What is drawn for step 7 is then the same
whether the run was interrupted at step 6 or not, and adding a draw in one place changes nothing in another.
"""

import hashlib
import json
import random
from typing import Any

import numpy as np
import torch


def derived_seed(seed: int, *key: int | str) -> int:
    """A number below 2**63 for each seed and key; different keys give unrelated numbers."""
    text = json.dumps([seed, *key], ensure_ascii=False)  # JSON keeps 1 and "1" apart, and ("a", "b") from "ab"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *key: int | str) -> torch.Generator:
    """A generator of its own, on the CPU so that its numbers do not depend on the device."""
    return torch.Generator().manual_seed(derived_seed(seed, *key))


def seed_everything(seed: int, *key: int | str) -> None:
    """The global generators of Python, NumPy and torch, for code that takes no generator (dropout)."""
    number = derived_seed(seed, *key)
    random.seed(number)
    np.random.seed(number % 2**32)  # noqa: NPY002 (the global one is the point)
    torch.manual_seed(number)


def random_state(device: torch.device) -> dict[str, Any]:
    """The global generators of this process, as tensors and plain values."""
    version, words, gauss = random.getstate()
    numpy_name, numpy_words, *numpy_rest = np.random.get_state(legacy=True)  # noqa: NPY002
    state = {
        "python": [version, torch.tensor(words), gauss],
        "numpy": [numpy_name, torch.tensor(np.asarray(numpy_words).tolist()), *numpy_rest],
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        state["device"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        state["device"] = torch.mps.get_rng_state()
    return state


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Put the global generators back where ``random_state`` found them."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    numpy_name, numpy_words, *numpy_rest = state["numpy"]
    np.random.set_state((numpy_name, numpy_words.numpy().astype(np.uint32), *numpy_rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if "device" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["device"], device)
    elif "device" in state and device.type == "mps":
        torch.mps.set_rng_state(state["device"])
