"""The check of data, before a run and as a command of its own: one job, with the readers of ``data/formats``."""

from mmres2net.data.check.before import check_before_training, check_paths, explain_failure

__all__ = ['check_before_training', 'check_paths', 'explain_failure']
