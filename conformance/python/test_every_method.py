"""The client's public surface, as the installed package has it, against what the tests say they cover."""

import inspect

import test_client  # noqa: F401  (its decorators fill COVERED)
from chromadb.api.client import AdminClient, Client
from chromadb.api.models.Collection import Collection
from coverage_of_methods import COVERED


def test_every_public_method_of_the_client_is_covered():
    surface = {
        f"{cls.__name__}.{name}"
        for cls in (Client, AdminClient, Collection)
        for name, member in inspect.getmembers(cls)
        if not name.startswith("_") and (callable(member) or isinstance(member, property))
    }
    assert surface - COVERED == set(), "methods that no test covers"
    assert COVERED - surface == set(), "methods that the client does not have"
