"""The images that show a difference: those where a side gains most, loses most, and random ones; never by hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmengine.dataset import pseudo_collate

from mmres2net.compare.result import Comparison, Images, Run
from mmres2net.drawing import Array, resize_within
from mmres2net.engine.build import build_dataset, scope_of
from mmres2net.engine.config import configs_in
from mmres2net.engine.embedded import embedded_config, registered_only
from mmres2net.engine.results import draw_part
from mmres2net.engine.source import channel_order_of, make_source, place_on
from mmres2net.engine.speed import speed_up
from mmres2net.errors import UserError, reason_of
from mmres2net.weights.reading import read_checkpoint

EACH, SMALLEST, LARGEST = 4, 240, 480  # images of a kind; pixels of their longer side
Example = tuple[str, str, list[tuple[str, Array]]]  # why it was chosen, its file, titles and drawings (H, W, 3) uint8


class Network:
    """The network of a run, and its test data set; a UserError if one of them cannot be read or they do not fit."""

    def __init__(self, run: Run) -> None:
        # What a test used, which is not what its config file says if it was given other data.
        kept = configs_in(Path(run.arrays).parent.parent)
        text = kept[0].read_text(encoding='utf-8') if len(kept) == 1 else run.config
        self.cfg = embedded_config({'meta': {'cfg': text}})
        self.device = 'cuda' if torch.cuda.is_available() else 'cpu'
        with registered_only():
            loader = self.cfg.get('test_dataloader') or self.cfg.get('val_dataloader') or {}
            self.dataset = build_dataset(self.cfg, loader.get('dataset') or {})
            content = read_checkpoint(Path(run.checkpoint))
            self.model = place_on(make_source(self.cfg, content, run.config_file, run.checkpoint).model, self.device)
        speed_up(self.model, self.device)

    def item(self, index: int) -> Any:
        """Return image ``index`` of the data set as its pipeline prepares it."""
        with scope_of(self.cfg):
            return self.dataset[index]

    def predict(self, item: Any) -> Any:
        """Return the data sample of a prepared image, with annotations and predictions."""
        with scope_of(self.cfg), torch.no_grad():
            return self.model.test_step(pseudo_collate([item]))[0]


def chosen(images: Images, seed: int, each: int = EACH) -> dict[str, list[int]]:
    """Return by kind the images where the second side gains and loses most on the first, and others at random."""
    first, second = (np.array([np.nan if v is None else v for v in scores], float) for scores in images.scores[:2])
    gain = second - first
    order = np.argsort(-gain, kind='stable')  # NaN at the end
    best, worst = ([int(i) for i in order if gain[i] * sign > 0] for sign in (1, -1))
    found = {'gains most': best[:each], 'loses most': worst[::-1][:each]}
    rest = np.setdiff1d(np.arange(len(gain)), best[:each] + worst[::-1][:each])
    return {**found, 'random': sorted(np.random.default_rng(seed).permutation(rest)[:each].tolist())}


def examples_of(result: Comparison, networks: Sequence[Network]) -> list[Example]:
    """Return annotations and predictions, drawn by each side's first network; a UserError where that is impossible."""
    found: list[Example] = []
    for kind, numbers in chosen(result.images, result.seed).items():
        for number in numbers:
            name = result.images.names[number]
            try:
                items = [network.item(number) for network in networks]
                samples = [network.predict(item) for network, item in zip(networks, items, strict=True)]
                drawn = _drawn(result.task, networks[0], items[0], samples)
            except Exception as error:  # a model is a program
                raise UserError(f'{name} cannot be drawn: {reason_of(error)}') from error
            scores = ['', *('' if one[number] is None else f' {one[number]:.2f}' for one in result.images.scores)]
            titles = ['annotation', *(side.name for side in result.sides)]
            shown = [
                (f'{title}{score}{text}', resize_within(array, SMALLEST, LARGEST))
                for title, score, (text, array) in zip(titles, scores, drawn, strict=True)
            ]
            found.append((kind, name, shown))
    return found


def _drawn(task: str, network: Network, item: Any, samples: Sequence[Any]) -> list[tuple[str, Array]]:
    """Return the annotation and the prediction of each sample as a line of text and a drawing."""
    if task == 'saliency':
        maps = [samples[0].gt_sem_seg.data[0].float(), *(sample.seg_logits.data[0] for sample in samples)]
        return [('', np.repeat((255 * one.clamp(0, 1)).byte().cpu().numpy()[..., None], 3, -1)) for one in maps]
    if path := samples[0].get('img_path'):
        image = mmcv.imread(path, channel_order='rgb')
    else:  # the data set holds the pixels
        image = item['inputs'].permute(1, 2, 0).numpy()[..., :: 1 if channel_order_of(network.cfg) == 'rgb' else -1]
    meta = getattr(network.dataset, 'metainfo', None) or {}
    parts = [draw_part(image, samples[0], 'gt', meta), *(draw_part(image, sample, 'pred', meta) for sample in samples)]
    return [(''.join(f': {line}' for line in lines), drawn) for drawn, lines in parts]
