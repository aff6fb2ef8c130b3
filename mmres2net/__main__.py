"""``python -m mmres2net`` is the ``mmres2net`` command."""

import sys

from mmres2net.cli import main

sys.exit(main())
