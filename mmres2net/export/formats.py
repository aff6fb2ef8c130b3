"""Writers: a traced graph into a file of each format, with what the file says of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision  # noqa: F401 - teaches the exporter its operations
from torch import Tensor, nn

from mmres2net.errors import UserError
from mmres2net.export.opening import opened
from mmres2net.export.quiet import quiet
from mmres2net.predict.facts import KEY, Facts
from mmres2net.predict.runtimes import EXTRA, FACTS_FILE

OPSET = 17  # from 16 on RoIAlign has the half-pixel shift; ONNX Runtime 1.12 and OpenVINO 2022.3 read 17
AXES = {2: 'height', 3: 'width'}


@dataclass(frozen=True)
class Graph:
    """What is written.

    Args:
        module: The graph; it takes the image alone.
        example: An image (N, 3, H, W) uint8 to trace it with.
        facts: What the file says of itself.
        axes: Which dimensions of each output vary, by name.
    """

    module: nn.Module
    example: Tensor
    facts: Facts
    axes: dict[str, dict[int, str]]

    @property
    def image_axes(self) -> dict[int, str]:
        """The dimensions of the image that vary, by name."""
        batch = {0: 'batch'} if self.facts.batch else {}
        return batch if self.facts.size else {**batch, **AXES}


def write(graph: Graph, kind: str, path: Path) -> None:
    """Write ``graph`` into ``path`` in the format ``kind``.

    Raises:
        UserError: A package is missing, or the graph cannot be expressed in this format.
    """
    # Exporters warn that a trace holds for the sizes it saw, which is compared afterwards anyway.
    try:
        with quiet(), torch.no_grad():
            WRITERS[kind].write(graph, path)
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f'--to {kind} needs a package that cannot be imported ({error}): {EXTRA}') from error
    except OSError as error:
        raise UserError(f'{path} cannot be written: {error.strerror or error}') from error
    except Exception as error:  # exporters have as many exceptions as reasons
        words = ' '.join(str(error).split())[:300] or type(error).__name__
        raise UserError(
            f'this {graph.facts.task} model cannot be written as {kind}: {words}\n'
            'try another format of --to, or the backbone alone: --part backbone'
        ) from error


def _write_onnx(graph: Graph, path: Path) -> None:
    import onnx

    # The exporter that traces: NMS, RoIAlign and numbers of boxes that vary come out as single operations, and it folds
    # constants by itself. The newer one (dynamo=True) does not get past the unknown numbers of boxes.
    torch.onnx.export(
        graph.module,
        (graph.example,),
        str(path),
        dynamo=False,
        opset_version=OPSET,
        input_names=['image'],
        output_names=list(graph.facts.outputs),
        dynamic_axes={'image': graph.image_axes, **graph.axes} if graph.image_axes else graph.axes,
    )
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, {KEY: graph.facts.as_text()})
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _write_openvino(graph: Graph, path: Path) -> None:
    import openvino

    between = path.with_suffix('.onnx')
    try:
        _write_onnx(graph, between)
        model = openvino.convert_model(between)
    finally:
        between.unlink(missing_ok=True)
    model.set_rt_info(graph.facts.as_text(), [KEY])
    openvino.save_model(model, path, compress_to_fp16=False)


def _write_torchscript(graph: Graph, path: Path) -> None:
    traced = torch.jit.freeze(torch.jit.trace(graph.module, (graph.example,), check_trace=False).eval())
    torch.jit.save(traced, str(path), _extra_files={FACTS_FILE: graph.facts.as_text()})


def _write_torch_export(graph: Graph, path: Path) -> None:
    from torch.export import Dim

    shapes = dict.fromkeys(graph.image_axes, Dim.DYNAMIC)
    module = opened(graph.module) if shapes else graph.module
    # Of a batch of one, or of a side of one pixel, the program would hold for that alone.
    example = torch.cat([graph.example] * 2) if graph.facts.batch else graph.example
    program = torch.export.export(module, (example,), dynamic_shapes=(shapes,), strict=False)
    torch.export.save(program, path, extra_files={FACTS_FILE: graph.facts.as_text()})


@dataclass(frozen=True)
class Writer:
    """A format: how its files end, and how one is written."""

    suffix: str
    write: Callable[[Graph, Path], None]


WRITERS = {
    'onnx': Writer('.onnx', _write_onnx),
    'openvino': Writer('.xml', _write_openvino),
    'torchscript': Writer('.pt', _write_torchscript),
    'torch-export': Writer('.pt2', _write_torch_export),
}
