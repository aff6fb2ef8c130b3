"""``mmres2net predict --ray N``: workers of a Ray cluster predict part after part; one that is killed is replaced.

Each part is a shard of its own, so that it is written once and completely, whoever predicts it.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmres2net.errors import RunError, UserError, reason_of

Start = Callable[[argparse.Namespace, Sequence[Path]], Callable[[tuple[int, int]], int]]


class Worker:
    """Loads the model, then predicts shards; Ray makes one in each process."""

    def __init__(self, folder: str, start: Start, args: argparse.Namespace, paths: Sequence[Path], count: int) -> None:
        os.chdir(folder)  # names of files may be relative
        self.predict, self.count = start(args, paths), count

    def __call__(self, row: dict[str, Any]) -> dict[str, int]:
        """Predict the shard with the number ``id``; its ``status`` is 1 if images of it were broken."""
        return {'status': self.predict((row['id'], self.count))}


def predict_by_ray(args: argparse.Namespace, paths: Sequence[Path], size: int, start: Start) -> int:
    """Predict parts of ``size`` images by what ``start`` returns in each worker; return 1 if some were broken, else 0.

    Raises:
        UserError: Ray is not installed, or its cluster cannot be reached.
        RunError: The model cannot be loaded or run there.
    """
    try:
        import ray.data
    except ImportError as error:
        raise UserError("--ray needs Ray: pip install 'mmres2net[ray]'") from error
    try:
        ray.init(ignore_reinit_error=True)
    except ConnectionError as error:
        raise UserError(f'--ray: {reason_of(error)}') from error
    count = -(-len(paths) // size)
    resources = {'num_cpus': args.threads or 1, 'num_gpus': int(str(args.device).startswith('cuda'))}
    shards = ray.data.range(count, override_num_blocks=count)
    arguments = (os.getcwd(), start, args, list(paths), count)
    try:
        done = shards.map(Worker, fn_constructor_args=arguments, concurrency=args.ray, **resources)
        return int(done.max('status'))
    except ray.exceptions.RayError as error:
        raise RunError(f'a worker of Ray failed: {str(error).strip().splitlines()[-1]}') from error
