"""The local Triton server: its `environment`, its life (`local`), and its onnxruntime backend (`backends/`)."""
