"""Annotations on disk: label maps with their classes, and COCO files with their run-length masks."""
