"""mmcv's compiled operators on torchvision and torch, for an mmcv that was installed without a compiler.

``mmcv.ops`` calls a compiled module, ``mmcv._ext``. Where the installed mmcv has none, this package answers the import
with the functions of its modules, on CPUs and GPUs; each has the name and the arguments that ``mmcv.ops`` uses, and
writes into the tensors that it is handed. An ``mmcv._ext`` of mmcv's own goes first.

Importing this module loads neither torch nor mmcv; the operators are loaded when ``mmcv.ops`` asks for them.
"""

import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

EXTENSION = 'mmcv._ext'
# Modules that import mmcv.ops and carry on without it.
USERS = ('mmdet.structures', 'mmseg.models', 'mmpretrain.models')


class OperatorFinder(MetaPathFinder, Loader):
    """Finds and fills the module ``mmcv._ext``, and no other module."""

    def create_module(self, spec: ModuleSpec) -> None:
        """Let Python make the module."""

    def exec_module(self, module: ModuleType) -> None:
        """Put the operators into ``module``; any other name becomes a function that raises an error when called."""
        from mmres2net.mmcv_ops import common, convolution, dense, pooling, suppression

        for part in (convolution, dense, pooling, suppression):
            own = {
                name: value for name, value in vars(part).items() if getattr(value, '__module__', '') == part.__name__
            }
            vars(module).update({name: value for name, value in own.items() if not name.startswith('_')})
        vars(module).update(common.VERSIONS, __getattr__=common.missing_operator)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the specification of the replacement for ``mmcv._ext``."""
        return ModuleSpec(EXTENSION, self, origin=__name__) if fullname == EXTENSION else None


def provide_operators(*, replace: bool = False) -> None:
    """Make ``mmcv._ext`` importable; ``replace`` takes ours before compiled ones, if ``mmcv.ops`` is not imported."""
    if any(name in sys.modules for name in USERS) and EXTENSION not in sys.modules:
        warnings.warn(
            'an OpenMMLab library was imported before mmres2net. If mmcv has no compiled operators, the library found '
            'none; import mmres2net first',
            stacklevel=2,
        )
    # Behind Python's own finders, so that a compiled module is found first.
    sys.meta_path.insert(0 if replace else len(sys.meta_path), OperatorFinder())
