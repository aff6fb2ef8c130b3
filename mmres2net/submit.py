"""``mmres2net submit``: training or testing as a job of a cluster, requeued and resumed when it is preempted."""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from mmres2net.errors import TRY_AGAIN, RunError, UserError, reason_of
from mmres2net.flags import parse

SAVE, POLL = 60.0, 0.2  # seconds to save a checkpoint in, and between two questions


class Task:
    """A process of a job, which submitit pickles: it starts ``command`` and ends with it."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = list(command)
        self._child: Any = None

    def __call__(self) -> None:
        """Run the command as torchrun would start it; a RunError says that it failed."""
        import submitit

        submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        self._child = subprocess.Popen(self.command)
        while self._child.poll() is None:  # no wait(), inside of which checkpoint() could not wait
            time.sleep(POLL)
        if self._child.returncode not in (0, TRY_AGAIN):
            raise RunError(f'{" ".join(self.command)} ended with status {self._child.returncode}')

    def checkpoint(self) -> Any:
        """Have the run save a checkpoint, and return what submitit queues again: the command that resumes."""
        import submitit

        self._child.send_signal(signal.SIGUSR1)
        end = time.monotonic() + SAVE
        while self._child.poll() is None and time.monotonic() < end:
            time.sleep(POLL)
        command = [part for part in self.command if part != '--overwrite']
        resume = ['--resume'] if command[3:4] == ['train'] and '--resume' not in command else []
        return submitit.helpers.DelayedSubmission(Task([*command, *resume]))


def submit(argv: Sequence[str] | None) -> Any:
    """Submit the job of ``argv`` and return submitit's object for it; a UserError says why it cannot be."""
    args = parse('submit', argv)
    try:
        import submitit
    except ImportError as error:
        raise UserError("mmres2net submit needs submitit: pip install 'mmres2net[cluster]'") from error
    tasks = args.tasks_per_node or args.gpus_per_node or 1
    given = {'slurm_partition': args.partition} if args.partition else {}
    try:
        executor = submitit.AutoExecutor(args.job_dir, cluster=args.cluster, slurm_max_num_timeout=1000)
        executor.update_parameters(
            name='mmres2net', nodes=args.nodes, tasks_per_node=tasks, gpus_per_node=args.gpus_per_node,
            cpus_per_task=args.cpus_per_task, timeout_min=int(60 * args.hours), **given,
        )  # fmt: skip
        command = [sys.executable, '-m', 'mmres2net', args.verb, *args.rest, '--launcher', 'pytorch']
        return executor.submit(Task(command))
    except (RuntimeError, ValueError) as error:
        raise UserError(f'--cluster {args.cluster}: {error}') from error


def main(argv: Sequence[str] | None = None) -> None:
    """Submit a job; one on this machine is waited for, and a RunError says that it failed."""
    job = submit(argv)
    print(f'job {job.job_id}, logs: {job.paths.stdout}')
    if type(job).__name__ == 'LocalJob' and (error := job.exception()):
        raise RunError(reason_of(error))
