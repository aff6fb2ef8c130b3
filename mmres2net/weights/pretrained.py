"""``init_cfg=dict(type='mmres2net.Pretrained', checkpoint=...)``: weights by name, loaded strictly and safely."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.dist import is_main_process
from mmengine.logging import print_log
from mmengine.model import update_init_info
from torch import nn

from mmres2net.errors import UserError
from mmres2net.registry import WEIGHT_INITIALIZERS
from mmres2net.weights.content import unwrap
from mmres2net.weights.families import recognise
from mmres2net.weights.fetching import fetch_checkpoint
from mmres2net.weights.fit import check_stage_pool, fit
from mmres2net.weights.mapping import to_ours
from mmres2net.weights.reading import read_checkpoint


@WEIGHT_INITIALIZERS.register_module()
class Pretrained:
    """Start a backbone, or the last stage as a head, from a checkpoint of any family that has the network.

    Unlike MMEngine's initialiser of this name, it reads no code, and leaves no parameter random that is not named.

    Args:
        checkpoint: An architecture with published weights, a path, an https address, ``timm://NAME`` or one of
            MMEngine's names; see :func:`mmres2net.weights.fetching.fetch_checkpoint`.
        prefix: What stands before the network's names in the file, such as ``'backbone.'``; None: found.
        random_ok: Names of parameters or modules, or patterns with ``*``, that may stay as they were initialised.

    Raises:
        UserError: When called: the checkpoint cannot be had, or does not fit; the network is then unchanged.
    """

    def __init__(self, checkpoint: str, *, prefix: str | None = None, random_ok: Sequence[str] = ()) -> None:
        if not isinstance(checkpoint, str):
            raise UserError(f'checkpoint={checkpoint!r} must be a name, a path or an address')
        self.checkpoint, self.prefix, self.random_ok = checkpoint, prefix, random_ok

    def __call__(self, module: nn.Module) -> None:
        """Load the checkpoint into ``module``, a Res2Net, Res2NetDLA or Res2LayerHead; the main process says what."""
        path = fetch_checkpoint(self.checkpoint)
        try:
            state = unwrap(read_checkpoint(path))
            recognised = recognise(state, prefix=self.prefix)
            ours, mapped = to_ours(state, recognised)
            check_stage_pool(recognised, module)
            fitted = fit(ours, module, random_ok=self.random_ok)
        except UserError as error:
            raise UserError(f'weights {self.checkpoint!r}: {error}') from error
        if is_main_process():
            print_log(f'weights {self.checkpoint!r}: {recognised}\n{mapped}\n{fitted}', 'current')
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=f'mmres2net.Pretrained: loaded from {self.checkpoint}')
