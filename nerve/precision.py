"""The precision to train and predict in; weights are always saved in float32."""

import os
import shutil
import subprocess
from pathlib import Path

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}  # as /proc/cpuinfo names them
# what oneDNN's limit on kernels, ONEDNN_MAX_CPU_ISA, holds where they may have it
BFLOAT16_KERNELS = ("ALL", "DEFAULT", "BF16", "FP16", "AMX", "AVX10")
BFLOAT16_CAPABILITY = 8.0  # of an NVIDIA GPU: Ampere and later


def cpu_flags() -> set[str]:
    """Return the set of the processor's features; empty where the system hides them."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return {flag for line in lines if line.startswith("flags") for flag in line.split()}


def gpu_capability() -> float | None:
    """Return the lowest compute capability of the NVIDIA GPUs; None where it is unknown."""
    if not shutil.which("nvidia-smi"):
        return None
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    lines = subprocess.run(command, capture_output=True, text=True).stdout.split()
    try:
        return min(map(float, lines), default=None)
    except ValueError:
        return None


def kernel_limit() -> str | None:
    """Return what ONEDNN_MAX_CPU_ISA holds kernels to, where that has no bfloat16."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "ALL").upper()
    return None if any(kernel in limit for kernel in BFLOAT16_KERNELS) else limit


def choose_precision(name: str) -> tuple[str, str]:
    """Return `(precision, why)` for one of PRECISIONS, the latter a phrase.

    "auto" takes bfloat16 where the GPU or processor computes in it; emulated elsewhere, it
    is slower than float32.

    Raises:
        ValueError: TensorFlow would end in an error of its own.
    """
    from nerve.backend import list_devices  # here: TensorFlow takes seconds to import

    devices = [device.lower() for device in list_devices()]
    found = {device.split(":")[0] for device in devices}
    limit = kernel_limit()
    if name == "bfloat16" and limit and found == {"cpu"}:
        said = f"kernels are held to {limit} by ONEDNN_MAX_CPU_ISA; unset that"
        raise ValueError(f"--precision bfloat16: {said}, or take --precision float32")
    if name != "auto":
        return name, f"as asked, on {devices[0]}"
    if "tpu" in found:
        return "bfloat16", "the TPU has it"
    if found & {"gpu", "cuda"}:
        capability = gpu_capability()
        if capability is not None and capability >= BFLOAT16_CAPABILITY:
            return "bfloat16", f"the GPU has it (compute capability {capability})"
        return "float32", "the GPU is not known to compute in bfloat16"
    if limit:
        return "float32", f"kernels have no bfloat16 (ONEDNN_MAX_CPU_ISA is {limit})"
    if found := sorted(BFLOAT16_FLAGS & cpu_flags()):
        return "bfloat16", f"the processor has it ({', '.join(found)})"
    return "float32", "the processor has no bfloat16 (avx512_bf16, amx_bf16)"


def dtype_policy(precision: str) -> str:
    """Return Keras's policy: it computes in `precision` and keeps weights in float32."""
    return "float32" if precision == "float32" else f"mixed_{precision}"
