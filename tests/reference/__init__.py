"""Independent, slow and straight implementations that the tests compare the package with.

Nothing here imports mmres2net, mmengine, mmcv or a host: a fault there cannot hide here as well.
"""
