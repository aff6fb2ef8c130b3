"""``python -m tests.stress.bootstrap``: time and memory of the bootstrap at the size of COCO's validation set."""

import resource
import time

import numpy as np

from mmres2net.compare.detection import coco_metrics
from mmres2net.compare.statistics import draw_images
from mmres2net.evaluation.matches import Matches, match

IMAGES, CLASSES, OBJECTS, DETECTIONS, SAMPLES = 5000, 80, 7, 100, 2000


def random_matches(seed: int) -> Matches:
    """Return the matches of a detector that finds about three quarters of the objects, which are those of all seeds."""
    truth, rng = np.random.default_rng(0), np.random.default_rng(seed)
    objects, found = [], []
    for i in range(IMAGES):
        boxes = np.hstack([truth.uniform(0, 400, (OBJECTS, 2)), truth.gamma(2, 40, (OBJECTS, 2)) + 4])
        labels, kept = truth.integers(CLASSES, size=OBJECTS), rng.random(OBJECTS) < 0.75
        for box, label in zip(boxes.tolist(), labels.tolist(), strict=True):
            size = {'bbox': box, 'area': box[2] * box[3], 'iscrowd': 0}
            objects.append({'id': len(objects) + 1, 'image_id': i, 'category_id': label, **size})
        near, wrong = boxes[kept] * rng.normal(1, 0.04, (kept.sum(), 4)), DETECTIONS - kept.sum()
        names = [*labels[kept].tolist(), *rng.integers(CLASSES, size=wrong).tolist()]
        scores = [*rng.beta(4, 2, len(near)).tolist(), *rng.beta(1, 6, wrong).tolist()]
        places = [*near.tolist(), *rng.uniform(4, 400, (wrong, 4)).tolist()]
        for box, label, score in zip(places, names, scores, strict=True):
            found.append({'image_id': i, 'category_id': label, 'bbox': box, 'score': score})
    images = [{'id': i, 'width': 800, 'height': 800} for i in range(IMAGES)]
    categories = [{'id': k, 'name': str(k)} for k in range(CLASSES)]
    return match({'images': images, 'categories': categories, 'annotations': objects}, found, 'bbox')


if __name__ == '__main__':
    runs, begin = [random_matches(seed) for seed in (1, 2)], time.perf_counter()
    draws = draw_images(IMAGES, SAMPLES, np.random.default_rng(0))
    for run in runs:
        print({name: round(float(values[0]), 2) for name, values in coco_metrics(run, draws)[0].items()})
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f'{time.perf_counter() - begin:.1f} s for two runs, at most {memory:.2f} GB')
