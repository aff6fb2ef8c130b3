"""The process of one contender: ``python -m benchmarks.worker``, driven by lines of JSON on standard input.

Between requests it waits and takes no processor time. What libraries print goes to standard error.
"""

import json
import os
import sys
import traceback
from typing import Any

import numpy as np

from benchmarks.case import Case, MissingError


class Worker:
    """Answers requests about one contender."""

    def build(self, name: str, case: dict[str, Any]) -> None:
        """Build the job of a contender."""
        import torch

        from benchmarks.contenders import contenders_of
        from mmres2net.engine.speed import keep_freed_memory

        self.case = Case(**{**case, 'size': tuple(case['size'])})
        if self.case.device == 'cuda' and not torch.cuda.is_available():
            raise MissingError('torch sees no GPU')
        torch.set_num_threads(self.case.threads)
        contender = contenders_of(self.case.suite)[name]
        if contender.keep_memory and self.case.device == 'cpu' and not keep_freed_memory():
            raise MissingError('this C library cannot keep freed memory')
        self.job = contender.build(self.case)

    def outputs(self, file: str) -> None:
        """Write the outputs to an ``.npz`` file."""
        np.savez(file, **self.job.outputs())

    def time(self, calls: int) -> dict[str, Any]:
        """Return the seconds of one call, as a mean of ``calls`` calls."""
        from torch.utils.benchmark import Timer

        timer = Timer('run()', globals={'run': self.job.run}, num_threads=self.case.threads)
        return {'seconds': timer.timeit(calls).median}


def main() -> None:
    """Answer each line with one line: ``ok``, ``missing`` or ``error``."""
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # whatever libraries print
    worker = Worker()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {'ok': getattr(worker, request.pop('do'))(**request)}
        except MissingError as error:
            answer = {'missing': str(error)}
        except Exception as error:  # everything is reported to the runner
            traceback.print_exc()
            answer = {'error': f'{type(error).__name__}: {error}'}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == '__main__':
    main()
