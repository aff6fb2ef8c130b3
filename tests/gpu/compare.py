"""How far results on a GPU may be from float64 on a CPU."""

from collections.abc import Sequence

from torch import Tensor

# Unit roundoffs, Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section 2.1. A sum of products grows
# by one factor, whatever the number format: so the errors of two formats are to each other as their roundoffs.
ROUNDOFF = {'float32': 2.0**-24, 'tf32': 2.0**-11, 'bfloat16': 2.0**-8, 'float16': 2.0**-11}
SLACK = 4  # for kernels that add in another order


def error(given: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Return the largest distance of tensors from their references, each as a share of the reference's norm."""
    pairs = zip(given, wanted, strict=True)
    return max(float((a.detach().double().cpu() - b).norm() / b.norm().clamp_min(1e-30)) for a, b in pairs)


def bound(of_float32: float, name: str = 'float32') -> float:
    """Return the error allowed in a number format, where float32 on the CPU has the error ``of_float32``."""
    return SLACK * max(of_float32, ROUNDOFF['float32']) * ROUNDOFF[name] / ROUNDOFF['float32']
