"""How far results on a GPU may be from float64 on a CPU."""

from collections.abc import Sequence

from torch import Tensor

# Unit roundoffs; errors of sums of products are proportional to them, whatever the number format: Higham, "Accuracy and
# Stability of Numerical Algorithms", 2002, section 3.1. Networks emulated in tf32 and bfloat16 had 0.2 and 0.3 of that.
ROUNDOFF = {'float32': 2.0**-24, 'tf32': 2.0**-11, 'bfloat16': 2.0**-8, 'float16': 2.0**-11}
SLACK = 4  # for kernels that add in another order


def error(given: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Return the largest distance of tensors from their references, each as a share of the reference's norm."""
    given = [tensor.detach().double().cpu() for tensor in given]
    return max(float((a - b).norm() / b.norm().clamp_min(1e-30)) for a, b in zip(given, wanted, strict=True))


def bound(of_float32: float, name: str = 'float32') -> float:
    """Return the error allowed in a number format, where float32 on the CPU has the error ``of_float32``."""
    return SLACK * max(of_float32, ROUNDOFF['float32']) * ROUNDOFF[name] / ROUNDOFF['float32']
