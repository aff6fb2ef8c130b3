"""``python -m mmres2net`` is the ``mmres2net`` command. Signals are taken before the imports that it needs."""

import os
import signal
import sys
from types import FrameType

from mmres2net.errors import Interrupted, report


def _stop(number: int, frame: FrameType | None) -> None:
    stop = Interrupted(number)
    report(stop)
    os._exit(stop.status)


for _number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
    if signal.getsignal(_number) is not signal.SIG_IGN:
        signal.signal(_number, _stop)

from mmres2net.cli import main  # noqa: E402

if __name__ == '__main__':
    sys.exit(main())
