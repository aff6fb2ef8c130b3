"""What is known of published weights; none of them are part of this project."""

from mmres2net.weights.published import PUBLISHED, Pixels, Published, find_published, pixels_of

__all__ = ['PUBLISHED', 'Pixels', 'Published', 'find_published', 'pixels_of']
