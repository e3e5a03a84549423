"""Methods that the host calls often."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

Method = TypeVar("Method", bound=Callable[..., Any])


class _HostMethod:
    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    def __get__(self, instance: object, owner: type) -> Any:
        return self._function if instance is None else partial(self._function, instance)


def host_method(method: Method) -> Method:
    """A method of an Equinox module, bound as a partial function.

    Of a method that Python binds Equinox makes a pytree, so that it can be handed to a transformation, at every look
    at it; that takes 40 us, more than most methods do that work on NumPy arrays.
    """
    return cast(Method, _HostMethod(method))
