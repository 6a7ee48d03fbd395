"""Places other than this machine where TensorRT plans are built: NVIDIA's container, and a Job of a Kubernetes cluster.

A request is a folder, and so is a result. `parcel` seals both with the digests of their files, since they cross
machines; `request` packs the code that builds the plan into it; `start.sh` and `program` run there; `container` and
`kubernetes` carry a request there and its result back. What the folders say is `facts/plan.py`'s and
`steps/plan_folders.py`'s: nothing here knows TensorRT.
"""
