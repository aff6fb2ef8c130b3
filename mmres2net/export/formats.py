"""Writers: a graph into a file of each format, with its metadata.

ONNX files, and OpenVINO's through them, are written by torch's tracing exporter. torch calls it deprecated, but the
newer one needs one package more (onnxscript). Only its own deprecation warning is hidden, not those about the model.
"""

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision  # noqa: F401 - teaches the exporter its operations
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d, pad

from mmres2net.errors import UserError
from mmres2net.export.graphs import Crop, Graph
from mmres2net.predict.runtimes import EXTRA, KEY, METADATA_FILE

OPSET = 17  # since 16 RoIAlign has the half-pixel shift; ONNX Runtime 1.12 and OpenVINO 2022.3 read 17
# Warnings that hold for every model: that tracing is deprecated, and that a trace may hold for the traced size only,
# which the verification on other sizes decides.
EXPECTED: tuple[tuple[type[Warning], str], ...] = (
    (DeprecationWarning, r'.*(legacy|TorchScript|torch\.jit|dynamo|dynamic_axes)'),
    (UserWarning, r'.*(Exporting aten::index|legacy|TorchScript-based)'),
    (UserWarning, r'.*RoIAlign with a non-zero sampling_ratio'),  # said of -1 too, which is the same as 0
    (torch.jit.TracerWarning, ''),
)


def write_graph(graph: Graph, example: Tensor, kind: str, path: Path) -> None:
    """Write ``graph`` into ``path`` as ``kind``, a key of :data:`WRITERS`.

    ``example`` is an image (1, 3, H, W) uint8 to trace it with. A UserError says that a package is missing, or that the
    graph cannot be written in this format.
    """
    try:
        with warnings.catch_warnings(), torch.no_grad():
            for category, message in EXPECTED:
                warnings.filterwarnings('ignore', message=message, category=category)
            WRITERS[kind][1](graph, example, path)
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f'--to {kind} needs a package that cannot be imported ({error}): {EXTRA}') from error
    except OSError as error:
        raise UserError(f'{path} cannot be written: {error.strerror or error}') from error
    except Exception as error:  # exporters raise whatever they like
        reason = ' '.join(str(error).split())[:300] or type(error).__name__
        what = f'this {graph.metadata.task} model cannot be written as {kind}: {reason}\ntry another format with --to'
        raise UserError(f'{what}, or only the backbone: --part backbone') from error


def _write_onnx(graph: Graph, example: Tensor, path: Path) -> None:
    import onnx

    names: dict[str, Any] = {'input_names': ['image'], 'output_names': list(graph.metadata.outputs)}
    axes = {name: axes for name, axes in graph.axes.items() if axes}
    torch.onnx.export(
        graph.module, (example,), str(path), dynamo=False, opset_version=OPSET, dynamic_axes=axes, **names
    )
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, {KEY: graph.metadata.to_json()})
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _write_openvino(graph: Graph, example: Tensor, path: Path) -> None:
    import openvino

    between = path.with_suffix('.onnx')
    try:
        _write_onnx(graph, example, between)
        model = openvino.convert_model(between)
    finally:
        between.unlink(missing_ok=True)
    model.set_rt_info(graph.metadata.to_json(), [KEY])
    openvino.save_model(model, path, compress_to_fp16=False)


def _write_torchscript(graph: Graph, example: Tensor, path: Path) -> None:
    traced = torch.jit.freeze(torch.jit.trace(graph.module, (example,), check_trace=False).eval())
    torch.jit.save(traced, str(path), _extra_files={METADATA_FILE: graph.metadata.to_json()})


def _write_torch_export(graph: Graph, example: Tensor, path: Path) -> None:
    shapes = dict.fromkeys(graph.axes['image'], torch.export.Dim.DYNAMIC)
    module = make_pools_dynamic(graph.module) if shapes else graph.module
    # With a batch of one in the example, the program would hold for a batch of one only.
    batch = torch.cat([example] * 2) if graph.metadata.batch else example
    program = torch.export.export(module, (batch,), dynamic_shapes=(shapes,), strict=False)
    torch.export.save(program, path, extra_files={METADATA_FILE: graph.metadata.to_json()})


# The suffix of each format's files, and the function that writes one
WRITERS: dict[str, tuple[str, Callable[[Graph, Tensor, Path], None]]] = {
    'onnx': ('.onnx', _write_onnx),
    'openvino': ('.xml', _write_openvino),
    'torchscript': ('.pt', _write_torchscript),
    'torch-export': ('.pt2', _write_torch_export),
}


def make_pools_dynamic(model: nn.Module) -> nn.Module:
    """Return a copy of ``model`` whose crops and strided pools take any size in torch.export.

    torch computes the size of a pooled map by a division and asks for the remainder, which ties the program to sizes
    like the example's. For maps of even size it does not ask, so maps are padded to even sizes where that changes
    nothing.
    """
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        if isinstance(parent, Crop):
            parent.gather = True
        for name, child in parent.named_children():
            if isinstance(child, nn.MaxPool2d | nn.AvgPool2d) and _kind(child) in POOLS:
                setattr(parent, name, _DynamicPool(_kind(child)))
    return model


def _kind(pool: nn.MaxPool2d | nn.AvgPool2d) -> tuple[Any, ...]:
    sizes = [value[0] if isinstance(value, tuple) else value for value in (pool.kernel_size, pool.stride, pool.padding)]
    return (type(pool), *sizes, pool.ceil_mode, getattr(pool, 'count_include_pad', None))


class _DynamicPool(nn.Module):
    def __init__(self, kind: tuple[Any, ...]) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        """Return the pooled map, (N, C, ceil(H / 2), ceil(W / 2))."""
        return POOLS[self.kind](x)


def _even(x: Tensor, value: float = 0.0) -> Tensor:
    height, width = x.shape[2], x.shape[3]
    return pad(x, (0, (width + 1) // 2 * 2 - width, 0, (height + 1) // 2 * 2 - height), value=value)


# Of stems, of samples, of Res2Net's splits and of shortcuts, by type, kernel size, stride, padding, ceil_mode and
# count_include_pad. In a split padding counts, in a shortcut it does not.
POOLS: dict[tuple[Any, ...], Callable[[Tensor], Tensor]] = {
    (nn.MaxPool2d, 3, 2, 1, False, None): lambda x: max_pool2d(_even(x, -torch.inf), 3, 2, padding=1),
    (nn.MaxPool2d, 1, 2, 0, False, None): lambda x: x[:, :, ::2, ::2],
    (nn.AvgPool2d, 3, 2, 1, False, True): lambda x: avg_pool2d(_even(x), 3, 2, padding=1),
    (nn.AvgPool2d, 2, 2, 0, True, False): lambda x: (
        avg_pool2d(_even(x), 2, 2) / avg_pool2d(_even(torch.ones_like(x[:1, :1])), 2, 2)
    ),
}
