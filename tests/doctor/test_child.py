"""Probes in children that crash, hang, exit or fail: what is said, and that the others still get their turn."""

from __future__ import annotations

import sys

from mmres2net.doctor.child import LONGEST, Answer, _last_words, ask, shorten
from mmres2net.doctor.probes import NEEDS, PROBES

from .conftest import Module


def test_every_need_is_asked_before() -> None:
    order = list(PROBES)
    assert set(NEEDS) == set(order)
    assert [(name, need) for name in order for need in NEEDS[name] if order.index(need) > order.index(name)] == []


def test_a_crash_names_signal_and_place_and_blocks_what_needs_it(module: Module) -> None:
    source = module('numpy', 'import os\n\n\nos.abort()\n')
    answers = ask(['numpy', 'opencv', 'pycocotools'])
    assert answers['numpy'].error == f'the interpreter crashed with SIGABRT at {source}:4'
    assert answers['opencv'] == answers['pycocotools'] == Answer(blocked='numpy')
    assert not answers['opencv'].good


def test_a_failure_does_not_end_the_others(module: Module) -> None:
    module(
        'cv2', 'print(\'{"probe": "numpy"}\')\nraise ImportError(\'libGL.so.1: cannot open\\nshared object file\')\n'
    )
    answers = ask(['numpy', 'opencv', 'pycocotools'])
    assert answers['opencv'].error == 'ImportError: libGL.so.1: cannot open shared object file'
    assert answers['numpy'].facts['version'].split('.')[0] in '12'
    assert answers['pycocotools'].good


def test_a_hang_ends(module: Module) -> None:
    module('cv2', 'import time\ntime.sleep(60)\n')
    answers = ask(['opencv', 'pycocotools'], patience=3)
    assert answers['opencv'].error == 'no answer within 3 s'
    assert answers['pycocotools'].good


def test_an_exit_is_no_answer(module: Module) -> None:
    module('cv2', 'import os\nos._exit(0)\n')
    module('pycocotools', 'raise SystemExit(3)\n')
    answers = ask(['opencv', 'pycocotools'])
    assert answers['opencv'].error == 'the interpreter ended with status 0'
    assert answers['pycocotools'].error == 'SystemExit: 3'


def test_a_wrong_result_is_a_failure(module: Module) -> None:

    source = 'class mask:\n    encode = staticmethod(id)\n    area = staticmethod(lambda code: 5)\n'
    module('faster_coco_eval.core', source)
    (answer,) = ask(['faster_coco_eval']).values()
    assert answer.error == 'ValueError: faster_coco_eval.core.mask.area gave 5, right is 6'


def test_nothing_is_imported_here(module: Module) -> None:
    module('cv2', "raise ImportError('x')")
    loaded = set(sys.modules)
    ask(['opencv'])
    assert {name.split('.')[0] for name in set(sys.modules) - loaded} & {'cv2', 'torch', 'mmcv', 'numpy'} == set()


def test_blocked_through_a_chain(module: Module) -> None:
    module('torch', "raise ImportError('libcudart.so.13: cannot open shared object file')")
    answers = ask(['torch', 'torchvision', 'mmengine', 'mmcv', 'mmcv_ops', 'registry', 'mmdet', 'data'])
    assert answers['torch'].error.startswith('ImportError: libcudart')
    assert {answer.blocked for name, answer in answers.items() if name != 'torch'} == {'torch'}


def test_long_messages_are_cut() -> None:
    assert shorten('a\n  b') == 'a b'
    assert len(shorten('x' * 10_000)) == LONGEST + 4


def test_the_place_of_a_crash_is_a_file_not_the_import_machinery() -> None:
    stderr = (
        'Fatal Python error: Segmentation fault\n\nCurrent thread 0x1 (most recent call first):\n'
        '  File "<frozen importlib._bootstrap>", line 241 in _call_with_frames_removed\n'
        '  File "/site/mmcv/utils/ext_loader.py", line 13 in load_ext\n  File "/x.py", line 1 in <module>\n'
    )
    assert _last_words(-11, stderr) == 'the interpreter crashed with SIGSEGV at /site/mmcv/utils/ext_loader.py:13'
    assert _last_words(1, 'a\nlast line\n') == 'the interpreter ended with status 1: last line'
