"""One reader a data format: COCO JSON, VOC XML, semantic masks, class folders, and lists of other data sets."""
