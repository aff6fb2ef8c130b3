"""A contender's process for the tests of the runner: answers as its name says."""

import os
import sys
import time
from typing import Any

import numpy as np


def work(pipe: Any) -> None:
    os.setsid()
    name = ''
    while True:
        do, request = pipe.recv()
        name = request.get('name', name)
        answer: tuple[str, Any] = ('ok', {'TFLOP/s': 0.1})
        if do == 'outputs':
            answer = ('ok', {'out': np.array([1.0, 2.2 if name == 'wrong' else 2.0])})
        elif do == 'time':
            answer = ('ok', 0.002 if name == 'slow' else 0.001)
        if name == 'missing':
            answer = ('absent', 'no such package')
        elif name == 'failing' and do == 'time':
            answer = ('absent', 'ValueError: broken')
        elif name == 'ending' and do == 'time':
            sys.exit(3)
        elif name == 'hanging' and do == 'build':
            time.sleep(60)
        pipe.send(answer)
