"""What kinds that export to ONNX share: the tools, and PyTorch."""

from __future__ import annotations

from modelwright.kinds.kind import Needs

ONNX_TOOLS = ("onnx", "onnxruntime")
EXPORT_TOOLS = ("torch", "onnxscript", *ONNX_TOOLS)

_TORCH_DETAILS = """
import torch, onnxscript
cuda = torch.version.cuda
without = f"CPU (built for CUDA {cuda}, finds no GPU)" if cuda else "CPU"
print(f"{torch.__version__}, {f'CUDA {cuda}' if torch.cuda.is_available() else without}")
"""
TORCH = Needs(
    name="torch",
    modules=("torch", "onnxscript"),  # the exporter is a part of torch that needs onnxscript
    install="modelwright[torch]",
    details=_TORCH_DETAILS.strip(),
)
