"""What follows from matches of detections with objects; the matches are compared with pycocotools' by their metrics."""

import numpy as np

from mmres2net.evaluation.matches import IGNORED, arrays_of, average_precision, confusion_matrix, match, matches_of
from tests.evaluation.test_coco_protocol import of_boxes


def test_confusion_matrix_by_hand() -> None:
    truth, found = of_boxes(
        [(1, 0, 0, 0, 40, 40), (1, 1, 100, 100, 140, 140), (1, 1, 200, 200, 240, 240), (2, 0, 0, 0, 50, 50)],
        [
            (1, 0, 0, 0, 40, 40, 0.9),  # right
            (1, 0, 100, 100, 140, 140, 0.8),  # an object of class 1, taken for class 0
            (1, 1, 300, 300, 340, 340, 0.7),  # background
            (2, 0, 0, 0, 50, 50, 0.2),  # right, but under the least score: missed
        ],
    )
    matches = match(truth, found, 'bbox')
    assert confusion_matrix(matches).tolist() == [[1, 0, 1], [1, 0, 1], [0, 1, 0]]


def test_difficult_objects_are_neither_right_nor_wrong_and_arrays_come_back() -> None:
    truth, found = of_boxes([(1, 0, 0, 0, 40, 40), (1, 0, 100, 0, 140, 40)], [(1, 0, 0, 0, 40, 40, 0.9)] * 2)
    truth['annotations'][0]['ignore'] = True
    matches = match(truth, found, 'bbox')
    assert matches.verdict[0, :, 0].tolist() == [IGNORED, IGNORED]
    assert confusion_matrix(matches).tolist() == [[0, 1], [0, 0]]
    again = matches_of(arrays_of(matches, 'bbox'))
    assert np.array_equal(again.verdict, matches.verdict)
    nothing = match(truth, [], 'bbox')
    assert (average_precision(nothing).max(), len(nothing.score)) == (0, 0)
