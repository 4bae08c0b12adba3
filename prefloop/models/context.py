"""Rows that a model can read whole; what stands beyond its context it would read wrongly, or not at all."""

from torch import Tensor, nn

from prefloop.errors import DataError
from prefloop.models.load import context_length


def refuse_longer_than_context(model: nn.Module, length: Tensor, name: str) -> None:
    """``length`` B: tokens of each row of the data called ``name``."""
    context = context_length(model)
    if context is None or len(length) == 0 or int(length.max()) <= context:
        return
    raise DataError(
        f"{int((length > context).sum())} of {len(length)} rows of {name} are longer than the model can read: "
        f"the longest has {int(length.max())} tokens, the model reads {context}\n"
        f"  leave long prompts out (max_prompt=), cut long answers (max_completion=), or start from a model with a longer context"
    )
