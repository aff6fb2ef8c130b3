"""The runtimes behind one function each: open a file, get its facts and a function from an image to results.

Each runtime is imported where a file of its format is opened: no other has to be there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmres2net.errors import UserError
from mmres2net.predict.facts import KEY, Facts, read_facts

Array = npt.NDArray[Any]
EXTRA = 'pip install onnx onnxruntime openvino'
FACTS_FILE = f'{KEY}.json'


@dataclass(frozen=True)
class Session:
    """An open file.

    Args:
        facts: What it says of itself.
        run: From an image (N, 3, H, W) uint8 to results in the order of ``facts.outputs``.
    """

    facts: Facts
    run: Callable[[Array], list[Array]]


def open_file(path: str | Path, *, threads: int | None = None) -> Session:
    """Return an exported file, ready to run on the CPU.

    Args:
        path: A ``.onnx``, ``.xml`` (OpenVINO), ``.pt`` (TorchScript) or ``.pt2`` (torch.export) file.
        threads: Threads of the runtime; None: as it chooses.

    Raises:
        UserError: No such file, none of ours or a damaged one, or its runtime is missing.
    """
    path = Path(path).expanduser()
    opener = OPENERS.get(path.suffix)
    if opener is None:
        raise UserError(f'{path}: the suffix tells the format, one of {", ".join(OPENERS)}')
    if not path.is_file():
        raise UserError(f'no file {path}')
    try:
        return opener(path, threads)
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f'{path} needs a package that cannot be imported ({error}): {EXTRA}') from error
    except Exception as error:  # what a runtime raises of a broken file is its own affair
        words = (str(error).strip().splitlines() or [''])[0]
        raise UserError(f'{path} cannot be opened, so it is damaged or of another program: {words}') from error


def _open_onnx(path: Path, threads: int | None) -> Session:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
    facts = read_facts(session.get_modelmeta().custom_metadata_map.get(KEY), path)
    name = session.get_inputs()[0].name
    return Session(facts, lambda image: [np.asarray(out) for out in session.run(list(facts.outputs), {name: image})])


def _open_openvino(path: Path, threads: int | None) -> Session:
    import openvino

    if not path.with_suffix('.bin').is_file():
        raise UserError(f'{path} has its weights in {path.with_suffix(".bin").name}, which has to lie beside it')
    core = openvino.Core()
    model = core.read_model(path)
    facts = read_facts(str(model.get_rt_info([KEY]).value) if model.has_rt_info([KEY]) else None, path)
    # Elsewhere than in fp32 the results would not be those that were verified.
    settings: dict[str, Any] = {'INFERENCE_PRECISION_HINT': 'f32'}
    if threads is not None:
        settings['INFERENCE_NUM_THREADS'] = threads
    request = core.compile_model(model, 'CPU', settings).create_infer_request()

    def run(image: Array) -> list[Array]:
        results = request.infer({0: image})
        return [np.array(results[index]) for index in range(len(facts.outputs))]

    return Session(facts, run)


def _open_torchscript(path: Path, threads: int | None) -> Session:
    import torch
    import torchvision  # noqa: F401 - brings the operations of detectors

    files = {FACTS_FILE: ''}
    module = torch.jit.load(path, map_location='cpu', _extra_files=files)
    text: Any = files[FACTS_FILE]
    return _torch_session(read_facts(text.decode() if isinstance(text, bytes) else text, path), module, threads)


def _open_torch_export(path: Path, threads: int | None) -> Session:
    import torch
    import torchvision  # noqa: F401 - brings the operations of detectors

    files = {FACTS_FILE: ''}
    program = torch.export.load(path, extra_files=files)
    return _torch_session(read_facts(files[FACTS_FILE], path), program.module(), threads)


def _torch_session(facts: Facts, module: Any, threads: int | None) -> Session:
    import torch

    if threads is not None:
        torch.set_num_threads(threads)

    def run(image: Array) -> list[Array]:
        with torch.inference_mode():
            return [result.numpy() for result in module(torch.from_numpy(image))]

    return Session(facts, run)


OPENERS: dict[str, Callable[[Path, int | None], Session]] = {
    '.onnx': _open_onnx,
    '.xml': _open_openvino,
    '.pt': _open_torchscript,
    '.pt2': _open_torch_export,
}
