"""The process of one contender. Between requests it waits and takes no processor time."""

import os
import traceback
from typing import Any

from benchmarks.case import Case, MissingError, Outputs


class Worker:
    """Answers requests about one contender."""

    def ceilings(self, case: Case) -> dict[str, float]:
        from benchmarks.networks import ceilings

        return ceilings(case)

    def build(self, name: str, case: Case) -> None:
        import torch

        from benchmarks.contenders import CONTENDERS
        from mmres2net.engine.speed import keep_freed_memory

        torch.set_num_threads(case.threads)
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = case.precision != 'fp32'
        if case.device == 'cpu' and not keep_freed_memory():
            raise MissingError('this C library cannot keep freed memory')
        rows = [row for row in CONTENDERS if row.name == name and case.suite in row.suites]
        self.job, self.threads = rows[0].build(case), case.threads

    def outputs(self) -> Outputs:
        return self.job.outputs()

    def time(self, calls: int) -> float:
        """Return the seconds of one call, as a mean of ``calls`` calls; torch's timer waits for the device."""
        from torch.utils.benchmark import Timer

        return Timer('run()', globals={'run': self.job.run}, num_threads=self.threads).timeit(calls).median


def work(pipe: Any) -> None:
    """Answer requests in a new process: ``ok`` and a value, or ``absent`` and the reason."""
    os.setsid()
    os.dup2(2, 1)  # whatever libraries print
    worker = Worker()
    while True:
        do, request = pipe.recv()
        try:
            pipe.send(('ok', getattr(worker, do)(**request)))
        except MissingError as error:
            pipe.send(('absent', str(error)))
        except Exception as error:  # everything is reported to the runner
            traceback.print_exc()
            pipe.send(('absent', f'{type(error).__name__}: {error}'))
