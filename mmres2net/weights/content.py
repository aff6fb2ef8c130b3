"""What lies in a checkpoint: which of its entries are weights, without what trainers put around their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mmres2net.errors import UserError

# In order of choice. A running average comes before the weights it averages, as timm reads its own checkpoints: it is
# what the published figures were measured on. MMEngine needs no such rule: with its EMA hook `state_dict` holds the
# average, and `ema_state_dict` the weights that training goes on from.
ENTRIES = ('state_dict_ema', 'model_ema', 'state_dict', 'model')
WRAPPERS = ('module.', '_orig_mod.')  # of DistributedDataParallel and of torch.compile


def entry_of(content: Mapping[str, Any], key: str | None = None) -> str:
    """Return the name of the entry that holds the weights; '' where ``content`` itself does.

    Args:
        content: What a checkpoint file holds.
        key: The entry to take; None: the first of :data:`ENTRIES` that is there.

    Raises:
        UserError: ``key`` is no entry with weights.
    """
    holders = [name for name, value in content.items() if isinstance(value, Mapping) and _tensors(value)]
    if key is not None:
        if key not in holders:
            raise UserError(
                f'no weights under the key {key!r}; this file holds weights under: {", ".join(holders) or "none"}'
            )
        return key
    return next((name for name in ENTRIES if name in holders), '')


def unwrap(content: Mapping[str, Any], *, key: str | None = None) -> dict[str, Tensor]:
    """Return the weights in ``content`` by name, without the prefixes of wrappers.

    Args:
        content: What a checkpoint file holds: weights by name, or entries one of which is that.
        key: The entry to take, such as ``'state_dict'``; None: the first of :data:`ENTRIES` that is there.

    Raises:
        UserError: There are no weights, or not under ``key``, or two that differ in their wrapper alone.
    """
    entry = entry_of(content, key)
    found = _tensors(content[entry] if entry else content)
    if not found:
        names = ', '.join(map(repr, list(content)[:8])) or 'nothing'
        raise UserError(
            f'no weights found: the file holds {names}; weights are expected by name, or under one of '
            f'{", ".join(ENTRIES)} (another entry is named by its key)'
        )
    state: dict[str, Tensor] = {}
    for name, tensor in found.items():
        bare = _without_wrappers(name)
        if bare in state:
            raise UserError(f'the file holds {bare!r} twice, once as {name!r}: take one of the two out')
        state[bare] = tensor
    return state


def other_entries(content: Mapping[str, Any], key: str | None = None) -> list[str]:
    """Return the names of what lies in a checkpoint beside its weights, such as the optimizer's state."""
    entry = entry_of(content, key)
    return [name for name in content if name != entry] if entry else []


def _tensors(holder: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in holder.items() if isinstance(name, str) and isinstance(value, Tensor)}


def _without_wrappers(name: str) -> str:
    while True:
        wrapper = next((w for w in WRAPPERS if name.startswith(w)), '')
        if not wrapper:
            return name
        name = name[len(wrapper) :]
