"""Exported files: what they say about themselves, and the runtimes that open them, one function each.

A runtime is imported only when a file of its format is opened. ONNX and OpenVINO files are data. TorchScript and
torch.export files are programs: open them only if you trust their source. Pickles in .pt2 files are refused.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mmres2net.errors import UserError, reason_of

Array = npt.NDArray[Any]
KEY = 'mmres2net'  # of the metadata, JSON beside the graph
VERSION = 3  # raise it with every change of what a runner has to know
TASKS = ('backbone', 'classification', 'segmentation', 'detection')
TRANSFORMS = ('Resize', 'ResizeEdge', 'CenterCrop')
EXTRA = 'pip install onnx onnxruntime openvino'
FORCE_DATA = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'
MAX_THREADS = 256
METADATA_FILE = f'{KEY}.json'


@dataclass(frozen=True)
class ExportMetadata:
    """What a runner has to know about a file. The input is ``image``, (N, 3, H, W) uint8 RGB; of a detector N is 1."""

    task: str  # one of TASKS
    outputs: tuple[str, ...]  # names of the outputs, in order
    source: str = ''  # the config and the weights that it was exported from
    classes: tuple[str, ...] = ()  # class names; empty where they are unknown
    palette: tuple[tuple[int, int, int], ...] = ()  # a color (red, green, blue) of each class, or empty
    transforms: tuple[dict[str, Any], ...] = ()  # of the test pipeline, see mmres2net.predict.images.apply_transforms
    apply_exif: bool = True  # whether images are turned by their EXIF orientation
    align_corners: bool = False  # how a segmentor's logits are resized
    score_threshold: float = 0.0  # a detector gives no detections below this score
    mask_threshold: float = 0.5  # the probability from which on a pixel belongs to an object
    int8: dict[str, Any] = field(default_factory=dict)  # of a quantized file: calibration, and metrics with their drop

    def __post_init__(self) -> None:
        """Check what the runner relies on; a ValueError, TypeError or KeyError is a field of another form."""
        names = all(isinstance(name, str) for name in (*self.outputs, *self.classes))
        colors = all(isinstance(value, int) for color in self.palette for value in color)
        known = all(transform['type'] in TRANSFORMS for transform in self.transforms)
        if not (known and names and colors and self.task in TASKS):
            raise ValueError(self)
        float(self.score_threshold), float(self.mask_threshold)

    def to_json(self) -> str:
        """Return the text that is written into a file."""
        return json.dumps({'version': VERSION, **asdict(self)})

    def class_name(self, label: int) -> str:
        """Return the name of a class, or its number where the name is unknown."""
        return self.classes[label] if 0 <= label < len(self.classes) else f'class {label}'


def parse_metadata(text: str | None, path: Path) -> ExportMetadata:
    """Return the metadata in the text of a file; a UserError if it is None, damaged, or of another version."""
    if not text:
        raise UserError(f'{path} has no metadata of mmres2net; export it with: mmres2net export CONFIG CHECKPOINT')
    try:
        content = json.loads(text)
        version = content.pop('version')
        if version == VERSION:
            return ExportMetadata(**{key: _frozen(value) for key, value in content.items()})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f'{path}: the metadata of this file is damaged; export it again') from error
    raise UserError(f'{path} is of format version {version!r}, but this program reads {VERSION}; export it again')


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _frozen(entry) for key, entry in value.items()}
    return tuple(_frozen(entry) for entry in value) if isinstance(value, list) else value


class Session(NamedTuple):
    """An open file: its metadata, and what runs it."""

    metadata: ExportMetadata
    run: Callable[[Array], list[Array]]  # from images (N, 3, H, W) uint8 RGB to outputs, in the order of the metadata


def open_file(path: str | Path, *, threads: int | None = None) -> Session:
    """Return a ``.onnx``, ``.xml`` (OpenVINO), ``.pt`` (TorchScript) or ``.pt2`` (torch.export) file, ready to run.

    It runs on the CPU, with 1 to 256 ``threads`` (None: the runtime's default). A UserError says that there is no such
    file, that it is damaged or not an export of mmres2net, or that its runtime is missing.
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
        raise UserError(f'{path} is damaged or not an exported model: {reason_of(error)}') from error


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
