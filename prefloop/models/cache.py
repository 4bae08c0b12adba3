"""A key-value cache with its memory taken once, whose rows can be repeated and dropped.

transformers' DynamicCache copies every layer's keys and values each time a token is added; StaticCache makes attention look
at places not yet filled. Here a step writes its column into a buffer and attention sees a view of the filled part.
"""

from typing import Any

from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin

FULL = {"full_attention", "sliding_attention", "chunked_attention"}  # layers whose keys can all be kept


class BufferLayer(CacheLayerMixin):
    """Keys and values of one layer: R H T D, of which the first ``filled`` columns count."""

    is_sliding = False  # all keys are kept; a layer that sees a window only is masked by its model

    def __init__(self, columns: int):
        super().__init__()
        self.columns = columns
        self.filled = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        rows, heads = key_states.shape[:2]
        self.keys = key_states.new_empty(rows, heads, self.columns, key_states.shape[-1])
        self.values = value_states.new_empty(rows, heads, self.columns, value_states.shape[-1])
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if self.keys is None or self.values is None:
            self.lazy_initialization(key_states, value_states)
        end = self.filled + key_states.shape[2]
        self.keys[:, :, self.filled : end] = key_states
        self.values[:, :, self.filled : end] = value_states
        self.filled = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.keys, self.values = self.taken(self.keys, beam_idx), self.taken(self.values, beam_idx)

    def taken(self, buffer: Tensor, rows: Tensor) -> Tensor:
        """Rows of a buffer in a new one; only the filled columns are copied."""
        new = buffer.new_empty(len(rows), *buffer.shape[1:])
        new[:, :, : self.filled] = buffer[:, :, : self.filled].index_select(0, rows)
        return new

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.filled + query_length, 0

    def get_seq_length(self) -> int:
        return self.filled

    def get_max_length(self) -> int:
        return self.columns


def new_cache(model: Any, columns: int) -> Cache:
    """A buffered cache for models made of attention layers, transformers' own for any other (state-space layers)."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or FULL)
    if kinds <= FULL:
        return Cache(layers=[BufferLayer(columns) for _ in range(config.num_hidden_layers)])
    return DynamicCache(config=model.config)
