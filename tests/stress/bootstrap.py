"""``python -m tests.stress.bootstrap``: time and memory of the bootstrap at the size of COCO's validation set.

Two runs, 5,000 images with 7 objects and 100 detections each, 80 classes, 2,000 replicates of the twelve metrics. The
matching of the random boxes is not counted.
"""

import resource
import time

import numpy as np

from mmres2net.compare.detection import coco_metrics
from mmres2net.compare.statistics import draw_images
from mmres2net.evaluation.matches import Matches, match

IMAGES, CLASSES, OBJECTS, DETECTIONS, SAMPLES = 5000, 80, 7, 100, 2000


def random_matches(seed: int) -> Matches:
    """Return the matches of a detector that finds about three quarters of the objects."""
    truth, rng = np.random.default_rng(0), np.random.default_rng(seed)
    objects: list[dict[str, object]] = []
    found: list[dict[str, object]] = []
    for i in range(IMAGES):
        boxes = np.concatenate([truth.uniform(0, 400, (OBJECTS, 2)), truth.gamma(2, 40, (OBJECTS, 2)) + 4], 1)
        labels, kept = truth.integers(CLASSES, size=OBJECTS), rng.random(OBJECTS) < 0.75
        right = (boxes + rng.normal(0, 0.06, boxes.shape) * boxes[:, [2, 3, 2, 3]])[kept]
        wrong = rng.uniform(4, 400, (DETECTIONS - len(right), 4))
        for box, label in zip(boxes.tolist(), labels.tolist(), strict=True):
            size = {'bbox': box, 'area': box[2] * box[3], 'iscrowd': 0}
            objects.append({'id': len(objects) + 1, 'image_id': i, 'category_id': label, **size})
        names = [*labels[kept], *rng.integers(CLASSES, size=len(wrong))]
        scores = np.concatenate([rng.beta(4, 2, len(right)), rng.beta(1, 6, len(wrong))]).tolist()
        for box, label, score in zip([*right.tolist(), *wrong.tolist()], names, scores, strict=True):
            found.append({'image_id': i, 'category_id': int(label), 'bbox': box, 'score': score})
    images = [{'id': i, 'width': 800, 'height': 800} for i in range(IMAGES)]
    categories = [{'id': k, 'name': str(k)} for k in range(CLASSES)]
    return match({'images': images, 'categories': categories, 'annotations': objects}, found, 'bbox')


if __name__ == '__main__':
    runs = [random_matches(seed) for seed in (1, 2)]
    begin = time.perf_counter()
    draws = draw_images(IMAGES, SAMPLES, np.random.default_rng(0))
    for run in runs:
        metrics, _ = coco_metrics(run, draws)
        print({name: round(float(values[0]), 2) for name, values in metrics.items()})
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f'{time.perf_counter() - begin:.1f} s for two runs, at most {memory:.2f} GB')
