"""Contenders that run an exported network; torch is not imported in their processes."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmres2net.bench.exports import exported
from mmres2net.bench.worker import MissingError


class OnnxRuntime:
    """A network in ONNX Runtime.

    Args:
        folder: Where the exported files are.
        source: Whose network; see :mod:`mmres2net.bench.networks`.
        kind: Which network.
        arch: Of which architecture.
        images: File of the images (``.npy``), (N, 3, H, W).
        threads: Number of threads.
        device: ``cpu`` or ``cuda``.
        dtype: Must be ``fp32``: the files hold nothing else.
    """

    def __init__(
        self, folder: str, source: str, kind: str, arch: str, images: str, threads: int, device: str, dtype: str
    ) -> None:
        onnxruntime = importlib.import_module('onnxruntime')

        _check(dtype)
        provider = {'cpu': 'CPUExecutionProvider', 'cuda': 'CUDAExecutionProvider'}[device]
        if provider not in onnxruntime.get_available_providers():
            raise MissingError(f'this onnxruntime has no {provider}')
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Its threads spin while a run lasts, which is its way to be fast, and not a moment longer: others have turns.
        options.add_session_config_entry('session.force_spinning_stop', '1')
        x = np.load(images)
        file = exported(folder, source, kind, arch, x.shape)
        self._session = onnxruntime.InferenceSession(str(file), options, providers=[provider])
        self._inputs = {self._session.get_inputs()[0].name: x}

    def run(self) -> None:
        self._session.run(None, self._inputs)

    def outputs(self) -> dict[str, np.ndarray]:
        return _named(self._session.run(None, self._inputs))

    def facts(self) -> dict[str, Any]:
        return {}


class OpenVino:
    """A network in OpenVINO on the CPU; the arguments are those of :class:`OnnxRuntime`."""

    def __init__(
        self, folder: str, source: str, kind: str, arch: str, images: str, threads: int, device: str, dtype: str
    ) -> None:
        openvino = importlib.import_module('openvino')

        _check(dtype)
        if device != 'cpu':
            raise MissingError('OpenVINO is measured on the CPU alone')
        x = np.load(images)
        file = exported(folder, source, kind, arch, x.shape)
        settings = {
            'PERFORMANCE_HINT': 'LATENCY', 'INFERENCE_NUM_THREADS': threads, 'NUM_STREAMS': 1,
            'INFERENCE_PRECISION_HINT': 'f32',
        }  # fmt: skip
        compiled = openvino.Core().compile_model(str(file), 'CPU', settings)
        self._request, self._x = compiled.create_infer_request(), x

    def run(self) -> None:
        self._request.infer([self._x], share_inputs=True, share_outputs=True)

    def outputs(self) -> dict[str, np.ndarray]:
        return _named(list(self._request.infer([self._x]).values()))

    def facts(self) -> dict[str, Any]:
        return {}


def _check(dtype: str) -> None:
    if dtype != 'fp32':
        raise MissingError(f'the export is in float32, not {dtype}')


def _named(outs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    return {f'feature {i}': out for i, out in enumerate(outs)}
