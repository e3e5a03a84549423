"""Nothing in here needs more than the wheels, and nothing leaves this machine."""

from __future__ import annotations

import warnings

# The wheels' type support pulls in a parser that imports what Python 3.11 deprecates: not ours to be told about.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import rosidl_generator_py  # noqa: F401
