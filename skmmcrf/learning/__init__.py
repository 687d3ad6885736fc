"""Max-margin learning of a field: examples, the program (8), and Algorithm 1. Plain arrays, no torch."""

from skmmcrf.learning.cutting_planes import CuttingPlanes
from skmmcrf.learning.example import Example
from skmmcrf.learning.linear_system import DegenerateProgramError, LinearSystem
from skmmcrf.learning.program import Solution, evaluate_stored, optimality_residuals, solve_program

__all__ = [
    "CuttingPlanes",
    "DegenerateProgramError",
    "Example",
    "LinearSystem",
    "Solution",
    "evaluate_stored",
    "optimality_residuals",
    "solve_program",
]
