"""What all detection runs share."""

_base_ = 'runtime.py'

default_scope = 'mmdet'
env_cfg = dict(cudnn_benchmark=False)  # the images of a batch have other sizes each time
visualizer = dict(type='DetLocalVisualizer', vis_backends={{_base_.vis_backends}}, name='visualizer')
