"""Builds in MLflow: a run for each build of a model, its versions in the registry, and an alias for what is live.

A build writes a record for each of its models into the outbox, which needs no MLflow. `recorder.send` then has a
process of its own bring the records to the registry: what cannot be brought stays in the outbox, for the next build.
"""
