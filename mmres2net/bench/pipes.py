"""What the contenders of data loading do: one pass over the training data."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

import numpy as np
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from mmengine.utils.dl_utils import set_multi_processing

from mmres2net.bench.setups import assemble
from mmres2net.bench.whole import seed

COMPARED = 4  # images


class Loading:
    """A pass over the first images of a config's training data, batch after batch.

    Args:
        config: The config; see :func:`mmres2net.bench.setups.assemble` for the next two.
        data: Folder of the data.
        embedded: Whether these are the embedded ones.
        workers: Processes that load; with 0 the contender's own does.
        images: Images a pass.
    """

    def __init__(self, config: str, data: str, embedded: bool, workers: int, images: int) -> None:
        cfg = assemble(config, data=data, embedded=embedded)
        init_default_scope(cfg.get('default_scope') or 'mmengine')
        set_multi_processing(**cfg.get('env_cfg', {}).get('mp_cfg', {}))
        loader = cfg.train_dataloader
        loader.num_workers, loader.persistent_workers = workers, workers > 0
        loader.sampler = {'type': 'DefaultSampler', 'shuffle': False}
        loader.dataset.indices = images
        self.loader = Runner.build_dataloader(loader, seed=0)
        self._preprocessor = MODELS.build(cfg.model.data_preprocessor)
        self._images = len(self.loader.dataset)

    def run(self) -> None:
        for _ in self.loader:
            pass

    def outputs(self) -> dict[str, np.ndarray]:
        """Return the first images, as this config's pipeline makes them."""
        seed()
        dataset = self.loader.dataset
        return {f'image {i}': dataset[i]['inputs'].numpy() for i in range(min(COMPARED, len(dataset)))}

    def facts(self) -> dict[str, Any]:
        """Return the number of images, and the milliseconds that each part takes for one of them."""
        return {'images': self._images, 'parts': self._parts()}

    def _parts(self) -> dict[str, float]:
        """Time the parts by themselves, in this process and without workers."""
        dataset = self.loader.dataset
        spent: defaultdict[str, float] = defaultdict(float)
        items = []
        for index in range(self._images):
            item: Any = dataset.get_data_info(index)
            for transform in dataset.pipeline.transforms:
                start = time.perf_counter()
                item = transform(item)
                spent[type(transform).__name__] += time.perf_counter() - start
            items.append(item)
        size = self.loader.batch_size or self.loader.batch_sampler.batch_size
        for first in range(0, len(items), size):
            start = time.perf_counter()
            batch = self.loader.collate_fn(items[first : first + size])
            spent['collate'] += time.perf_counter() - start
            start = time.perf_counter()
            self._preprocessor(batch, True)
            spent['normalise, pad and stack (in the model)'] += time.perf_counter() - start
        return {name: 1000 * seconds / self._images for name, seconds in spent.items()}
