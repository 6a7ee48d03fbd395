"""The `digits` builder without Modelwright: what one would write by hand to get the same model, exported and checked.

    python plain_digits.py BUILDER_FOLDER OUT '{"params": {…}, "opset": 20}'

No engine code is imported. It ends by printing the accuracy, which must be the one that the engine publishes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

INPUT, OUTPUT = "image", "logits"


def main(builder: Path, out: Path, options: dict[str, Any]) -> float:
    sys.path.insert(0, str(builder))
    import data  # type: ignore[import-not-found]
    import numpy as np

    samples = data.samples()
    np.savez(out / "samples.npz", **samples)
    module = trained(out, options["params"])
    expected = exported(module, samples[INPUT], out, options["opset"])
    np.savez(out / "expected.npz", **{OUTPUT: expected})
    return verified(out, samples, expected, data.evaluate)


def trained(out: Path, params: dict[str, Any]) -> Any:
    import torch
    import train  # type: ignore[import-not-found]

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    module = train.train(**params).eval()
    torch.save(module, out / "module.pt")
    return module


def exported(module: Any, images: Any, out: Path, opset: int) -> Any:
    """Write model.onnx; what the module itself answers on the samples."""
    import torch

    tensor = torch.from_numpy(images)
    with torch.no_grad():
        expected = module(tensor).numpy()
        batch = ({0: torch.export.Dim.DYNAMIC},)
        program = torch.export.export(module, (tensor[:2],), dynamic_shapes=batch, strict=False)
    names = {"input_names": [INPUT], "output_names": [OUTPUT]}
    result = torch.onnx.export(program, (), dynamo=True, verbose=False, opset_version=opset, **names)
    (out / "model.onnx").write_bytes(result.model_proto.SerializeToString(deterministic=True))
    return expected


def verified(out: Path, samples: Any, expected: Any, evaluate: Any) -> float:
    """Run model.onnx on the samples, compare, keep both as golden.npz; the accuracy on the held-out part."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(out / "model.onnx"), options, providers=["CPUExecutionProvider"])

    def infer(inputs: Any) -> Any:
        return {OUTPUT: session.run([OUTPUT], inputs)[0]}

    actual = infer(samples)[OUTPUT]
    np.testing.assert_allclose(actual, expected, atol=1e-4, rtol=1e-4)
    accuracy: float = evaluate(infer)["accuracy"]
    np.savez(out / "golden.npz", **{f"input/{INPUT}": samples[INPUT], f"output/{OUTPUT}": actual})
    return accuracy


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])))
