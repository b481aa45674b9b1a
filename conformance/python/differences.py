"""Where Ochre answers better than Chroma 1.5.9 on purpose; `differs` marks the tests that show it."""

import pytest

DIFFERENCES = {
    "int-float": "Chroma truncates a fractional operand when it compares it with integers: 1.5 matches 1.",
    "unknown-ids": "Chroma fails a query with 500 when one of its ids does not exist.",
    "rename-taken": "Chroma answers 500 when a collection is renamed to a name that is taken.",
    "list-metadata": "Chroma drops the connection on list-valued collection metadata.",
    "scope": "Chroma ignores tenant and database of the path on data routes.",
    "many-ids": "Chroma fails a get of more than about 32,700 ids.",
    "search": "Chroma's single node does not serve search.",
    "fork": "Chroma's single node does not fork collections.",
    "transactions": "Chroma's single node has no conditional transactions.",
    "functions": "Chroma's single node does not attach functions.",
    "indexing-status": "Chroma's single node does not answer how much is indexed.",
    "restart-order": "Chroma's server is not restarted by these tests.",
    "idempotency": "Chroma has no idempotency keys.",
    "no-conditions": "Chroma deletes every record where a filter has no conditions.",
    "reserved-keys": "Chroma lets metadata under a reserved key replace the document that came beside it.",
    "crn": "Chroma drops the connection on the route by resource name.",
}


def differs(name: str):
    """The test holds for Ochre only, because of the difference of this name."""
    assert name in DIFFERENCES, name
    return pytest.mark.ochre_only(DIFFERENCES[name])
