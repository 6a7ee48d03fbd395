"""The local Triton server: its `environment`, its life (`local`), and its onnxruntime backend (`backends/`)."""

BACKENDS = frozenset({"onnxruntime", "python"})  # of the downloaded server
