"""The fused GPU kernel: attention output and entropy in one pass. Triton is imported at the first use only.

`ieadapt.functional` chooses between this and the streaming path; nothing else needs to know.
"""

from ieadapt.functional.kernels.launch import FusedRows, KernelChoice, fused_rows, uses_kernel

__all__ = ["FusedRows", "KernelChoice", "fused_rows", "uses_kernel"]
