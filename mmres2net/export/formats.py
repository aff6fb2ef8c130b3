"""Writers: a graph into a file of each format, with its metadata.

ONNX files, and OpenVINO's through them, are written by torch's tracing exporter. torch calls it deprecated, but the
newer one needs one package more (onnxscript). Warnings are hidden: whether a trace holds is decided by the comparison.
"""

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision  # noqa: F401 - teaches the exporter its operations
from torch import Tensor, nn
from torch.nn.functional import pad

from mmres2net.errors import UserError
from mmres2net.export.graphs import Crop, Graph
from mmres2net.predict.runtimes import EXTRA, KEY, METADATA_FILE, ExportMetadata

OPSET = 17  # since 16 RoIAlign has the half-pixel shift; ONNX Runtime 1.12 and OpenVINO 2022.3 read 17


def write_graph(graph: Graph, example: Tensor, kind: str, path: Path) -> None:
    """Write ``graph`` into ``path`` as ``kind``, a key of :data:`WRITERS`.

    ``example`` is an image (1, 3, H, W) uint8 to trace it with. A UserError says that a package is missing, or that the
    graph cannot be written in this format.
    """
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter('ignore')
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
    save(onnx.load(str(path)), graph.metadata, path)


def _write_openvino(graph: Graph, example: Tensor, path: Path) -> None:
    import openvino

    between = path.with_suffix('.onnx')
    try:
        _write_onnx(graph, example, between)
        model = openvino.convert_model(between)
    finally:
        between.unlink(missing_ok=True)
    save(model, graph.metadata, path)


def save(model: Any, metadata: ExportMetadata, path: Path) -> None:
    """Write a model of ONNX (.onnx) or OpenVINO (.xml, its weights beside it in .bin) into ``path``, with metadata."""
    if path.suffix == '.xml':
        import openvino

        model.set_rt_info(metadata.to_json(), [KEY])
        openvino.save_model(model, path, compress_to_fp16=False)
    else:
        import onnx

        onnx.helper.set_model_props(model, {KEY: metadata.to_json()})
        onnx.checker.check_model(model)
        onnx.save(model, str(path))


def _write_torchscript(graph: Graph, example: Tensor, path: Path) -> None:
    traced = torch.jit.freeze(torch.jit.trace(graph.module, (example,), check_trace=False).eval())
    torch.jit.save(traced, str(path), _extra_files={METADATA_FILE: graph.metadata.to_json()})


def _write_torch_export(graph: Graph, example: Tensor, path: Path) -> None:
    shapes = dict.fromkeys(graph.axes['image'], torch.export.Dim.DYNAMIC)
    module = make_pools_dynamic(graph.module) if shapes else graph.module
    # With a batch of one in the example, the program would hold for a batch of one only.
    batch = torch.cat([example] * 2) if graph.metadata.task != 'detection' else example
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

    torch computes the size of a strided pool by a division and asks for the remainder, which ties the program to sizes
    like the example's. It does not ask where every second value is taken of a pool of stride 1.
    """
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        if isinstance(parent, Crop):
            parent.gather = True
        for name, child in parent.named_children():
            if isinstance(child, nn.MaxPool2d | nn.AvgPool2d) and _is_known(child):
                setattr(parent, name, _Strided(child))
    return model


def _is_known(pool: nn.MaxPool2d | nn.AvgPool2d) -> bool:
    facts = [pool.kernel_size, pool.stride, pool.padding, getattr(pool, 'count_include_pad', 1)]
    return isinstance(pool.stride, int) and (not pool.ceil_mode or facts == [2, 2, 0, False])  # that of a shortcut


class _Strided(nn.Module):
    def __init__(self, pool: nn.MaxPool2d | nn.AvgPool2d) -> None:
        super().__init__()
        self.pool, self.stride, self.ceil_mode = copy.copy(pool), pool.stride, pool.ceil_mode
        self.pool.stride, self.pool.ceil_mode = 1, False

    def forward(self, x: Tensor) -> Tensor:
        if self.ceil_mode:  # of a shortcut: where the size is odd, the mean is that of the last pixels alone
            x = pad(x, (0, 1, 0, 1), mode='replicate')
        return self.pool(x)[:, :, :: self.stride, :: self.stride]
