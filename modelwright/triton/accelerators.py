"""The `tensorrt` accelerator of the onnxruntime backend: the parameters that the backend reads, and refuses others."""

from __future__ import annotations

# As onnxruntime_backend's src/onnxruntime.cc reads them.
TENSORRT_PARAMETERS = (
    *("precision_mode", "max_workspace_size_bytes", "int8_calibration_table_name", "int8_use_native_calibration_table"),
    *("trt_max_partition_iterations", "trt_min_subgraph_size", "trt_dla_enable", "trt_dla_core"),
    *("trt_engine_cache_enable", "trt_engine_cache_path", "trt_engine_cache_prefix", "trt_dump_subgraphs"),
    *("trt_force_sequential_engine_build", "trt_context_memory_sharing_enable", "trt_layer_norm_fp32_fallback"),
    *("trt_timing_cache_enable", "trt_timing_cache_path", "trt_force_timing_cache", "trt_detailed_build_log"),
    *("trt_build_heuristics_enable", "trt_sparsity_enable", "trt_builder_optimization_level"),
    *("trt_auxiliary_streams", "trt_tactic_sources", "trt_extra_plugin_lib_paths", "trt_cuda_graph_enable"),
    *("trt_profile_min_shapes", "trt_profile_max_shapes", "trt_profile_opt_shapes"),
    *("trt_dump_ep_context_model", "trt_ep_context_file_path", "trt_ep_context_embed_mode"),
)
TENSORRT_PRECISIONS = ("FP32", "FP16", "BF16", "INT8")  # of precision_mode
