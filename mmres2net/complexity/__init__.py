"""What a network costs: parameters, multiply-adds and activations, from shapes alone."""

from mmres2net.complexity.count import Complexity, complexity_of, complexity_of_arch, image_size, parameters_of

__all__ = ['Complexity', 'complexity_of', 'complexity_of_arch', 'image_size', 'parameters_of']
