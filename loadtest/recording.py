"""Raw records of requests."""

from __future__ import annotations

import numpy as np

# One a request, merged over workers. Nanoseconds of one clock. `code` 0 is success, else an index into the list of
# failure kinds. Service time is end - start, response time end - intended.
RECORD = np.dtype([("intended_ns", "<i8"), ("start_ns", "<i8"), ("end_ns", "<i8"), ("code", "<i4"), ("payload", "<i4")])
