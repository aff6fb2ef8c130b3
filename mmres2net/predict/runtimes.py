"""The runtimes, one function each: open a file, return its metadata and a function from images to outputs.

A runtime is imported only when a file of its format is opened. ONNX and OpenVINO files are data. TorchScript and
torch.export files are programs: open them only if you trust their source. Pickles in .pt2 files are refused.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmres2net.errors import UserError, reason_of
from mmres2net.predict.metadata import KEY, ExportMetadata, parse_metadata

Array = npt.NDArray[Any]
EXTRA = 'pip install onnx onnxruntime openvino'
FORCE_DATA = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'
MAX_THREADS = 256
METADATA_FILE = f'{KEY}.json'


@dataclass(frozen=True)
class Session:
    """An open file.

    Args:
        metadata: What it says about itself.
        run: From images (N, 3, H, W) uint8 RGB to outputs in the order of ``metadata.outputs``.
    """

    metadata: ExportMetadata
    run: Callable[[Array], list[Array]]


def open_file(path: str | Path, *, threads: int | None = None) -> Session:
    """Return an exported file, ready to run on the CPU.

    Args:
        path: A ``.onnx``, ``.xml`` (OpenVINO), ``.pt`` (TorchScript) or ``.pt2`` (torch.export) file.
        threads: Threads of the runtime, 1 to 256; None: the runtime's default.

    Raises:
        UserError: No such file, not an export of mmres2net, a damaged one, or its runtime is missing.
    """
    path = Path(path).expanduser()
    opener = OPENERS.get(path.suffix)
    if opener is None:
        raise UserError(f'{path}: the suffix tells the format and must be one of {", ".join(OPENERS)}')
    if not path.is_file():
        raise UserError(f'no file {path}')
    check_threads(threads)
    try:
        return opener(path, threads)
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f'{path} needs a package that cannot be imported ({error}): {EXTRA}') from error
    except Exception as error:  # runtimes raise whatever they like
        raise UserError(
            f'{path} cannot be opened; it is damaged or not an exported model: {reason_of(error)}'
        ) from error


def _open_onnx(path: Path, threads: int | None) -> Session:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
    metadata = parse_metadata(session.get_modelmeta().custom_metadata_map.get(KEY), path)
    name = session.get_inputs()[0].name
    return Session(
        metadata, lambda image: [np.asarray(out) for out in session.run(list(metadata.outputs), {name: image})]
    )


def _open_openvino(path: Path, threads: int | None) -> Session:
    import openvino

    if not path.with_suffix('.bin').is_file():
        raise UserError(f'{path} needs its weights {path.with_suffix(".bin").name} in the same folder')
    core = openvino.Core()
    model = core.read_model(path)
    metadata = parse_metadata(str(model.get_rt_info([KEY]).value) if model.has_rt_info([KEY]) else None, path)
    # In other precisions the outputs would not be those that were verified.
    settings: dict[str, Any] = {'INFERENCE_PRECISION_HINT': 'f32'}
    if threads is not None:
        settings['INFERENCE_NUM_THREADS'] = threads
    request = core.compile_model(model, 'CPU', settings).create_infer_request()

    def run(image: Array) -> list[Array]:
        results = request.infer({0: image})
        return [np.array(results[index]) for index in range(len(metadata.outputs))]

    return Session(metadata, run)


def _open_torch(path: Path, threads: int | None) -> Session:
    import torch
    import torchvision  # noqa: F401 - brings the operations of detectors

    files: dict[str, Any] = {METADATA_FILE: ''}
    if path.suffix == '.pt':
        module: Any = torch.jit.load(path, map_location='cpu', _extra_files=files)
    else:
        with _data_only():
            module = torch.export.load(path, extra_files=files).module()
    text = files[METADATA_FILE]
    metadata = parse_metadata(text.decode() if isinstance(text, bytes) else text, path)
    if threads is not None:
        torch.set_num_threads(threads)

    def run(image: Array) -> list[Array]:
        with torch.inference_mode():
            return [result.numpy() for result in module(torch.from_numpy(image))]

    return Session(metadata, run)


@contextmanager
def _data_only() -> Iterator[None]:
    """Within the block ``torch.load`` unpickles nothing but tensors, whatever the environment says.

    What torch logs about a damaged file, with a traceback, is not shown; the exception tells it.
    """
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    names = (FORCE_DATA, 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD')
    before = {name: os.environ.pop(name, None) for name in names}
    os.environ[FORCE_DATA] = '1'
    try:
        yield
    finally:
        logging.disable(level)
        del os.environ[FORCE_DATA]
        os.environ.update({name: value for name, value in before.items() if value is not None})


OPENERS: dict[str, Callable[[Path, int | None], Session]] = {
    '.onnx': _open_onnx,
    '.xml': _open_openvino,
    '.pt': _open_torch,
    '.pt2': _open_torch,
}


def check_threads(threads: int | None) -> None:
    """Check a number of threads, which may be None; a UserError says what is allowed."""
    if threads is not None and not 1 <= threads <= MAX_THREADS:
        raise UserError(f'--threads {threads}: choose 1 to {MAX_THREADS}')
