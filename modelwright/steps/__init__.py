"""The functions of steps: `run(context, out) -> facts`, which write files below `out`.

Kinds name them by reference (`kinds.step.StepFunction`). Importing this package imports none of them: a worker process
imports the one that it runs, and only then its ML framework.
"""
