"""Load tests for a Triton server whose numbers can be believed, and a performance gate between versions of a model.

Nothing is imported here: Locust patches the standard library when it is imported, which is right in the processes that
send requests and wrong in the command line that watches them.
"""
