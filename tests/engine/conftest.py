"""Each file of this folder begins with no visualizer made."""

import pytest
from mmengine.visualization import Visualizer


@pytest.fixture(autouse=True, scope='module')
def _no_visualizers() -> None:
    """MMEngine keeps visualizers by name as long as the process lives: another file's would log into its own folder."""
    kinds = [Visualizer]
    for kind in kinds:
        kinds += kind.__subclasses__()
        kind._instance_dict.clear()
