"""Load tests for a Triton server whose figures can be trusted, and a performance gate between versions of a model.

This file imports nothing: Locust patches the standard library when it is imported. The generator processes need that,
the command line that watches them must not have it.
"""
