"""The buffered cache beside transformers' own."""

import pytest
import torch
from transformers import DynamicCache

from prefloop.models.cache import BufferLayer, new_cache
from tests.helpers import assert_close
from tests.models.tiny import ARCHITECTURES, config, policy


def states(columns: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(3, 2, columns, 4, generator=rng), torch.randn(3, 2, columns, 5, generator=rng)


def test_a_layer_gives_back_all_it_was_given_in_order():
    layer = BufferLayer(8)
    given = [states(5, 0), states(1, 1), states(1, 2)]
    for part in given:
        keys, values = layer.update(*part)
    assert torch.equal(keys, torch.cat([k for k, _ in given], 2))
    assert torch.equal(values, torch.cat([v for _, v in given], 2))
    assert (layer.get_seq_length(), layer.get_max_length(), layer.get_mask_sizes(1)) == (7, 8, (8, 0))


def test_its_memory_is_taken_once():
    layer = BufferLayer(8)
    first, _ = layer.update(*states(5, 0))
    later, _ = layer.update(*states(1, 1))
    assert first.data_ptr() == later.data_ptr()


def test_rows_can_be_repeated_and_dropped():
    layer = BufferLayer(8)
    keys, values = (part.clone() for part in layer.update(*states(5, 0)))
    rows = torch.tensor([2, 2, 0, 1])
    layer.reorder_cache(rows)
    more = tuple(part[rows] for part in states(1, 1))
    kept_keys, kept_values = layer.update(*more)
    assert torch.equal(kept_keys, torch.cat([keys[rows], more[0]], 2))
    assert torch.equal(kept_values, torch.cat([values[rows], more[1]], 2))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_a_model_says_the_same_with_it_as_with_the_growing_cache(architecture):
    model = policy(architecture)
    tokens = torch.randint(3, 200, (2, 10), generator=torch.Generator().manual_seed(0))
    for cache in (new_cache(model, 10), DynamicCache(config=model.config)):
        said = [model(part, past_key_values=cache, use_cache=True).logits for part in tokens.split([6, 1, 1, 2], 1)]
        assert_close(torch.cat(said, 1), model(tokens).logits)


def test_models_with_layers_that_are_no_attention_get_the_cache_they_know():
    class Model:
        config = config("llama")

    assert isinstance(new_cache(Model, 4).layers[0], BufferLayer)
    Model.config = config("qwen2", layer_types=["full_attention", "sliding_attention"], use_sliding_window=True, sliding_window=4)
    assert isinstance(new_cache(Model, 4).layers[1], BufferLayer)
    Model.config = config("llama")
    Model.config.layer_types = ["linear_attention", "full_attention"]
    assert isinstance(new_cache(Model, 4), DynamicCache)


@torch.no_grad()
def test_a_sliding_window_stays_a_window_though_all_keys_are_kept():
    model = policy("qwen2", layer_types=["full_attention", "sliding_attention"], use_sliding_window=True, sliding_window=4)
    tokens = torch.randint(3, 200, (2, 12), generator=torch.Generator().manual_seed(0))
    cache = new_cache(model, 12)
    said = [model(part, past_key_values=cache, use_cache=True).logits for part in tokens.split([7, 1, 1, 1, 1, 1], 1)]
    assert_close(torch.cat(said, 1), model(tokens).logits)
