"""pytest plugin: bounds hypothesis, so that a run takes minutes (`BOUND_EXAMPLES`, `BOUND_STEPS`; 0 = no bound)."""

import os

import hypothesis

EXAMPLES = int(os.environ.get("BOUND_EXAMPLES", "0"))
STEPS = int(os.environ.get("BOUND_STEPS", "0"))


def bounded(settings):
    changes = {}
    if EXAMPLES:
        changes["max_examples"] = min(EXAMPLES, settings.max_examples)
    if STEPS:
        changes["stateful_step_count"] = min(STEPS, settings.stateful_step_count)
    return hypothesis.settings(settings, **changes)


def pytest_configure(config):
    # The tests' own conftest, loaded by now, chose a profile: this one lies over it.
    hypothesis.settings.register_profile("bounded", bounded(hypothesis.settings.default))
    hypothesis.settings.load_profile("bounded")


def pytest_collection_modifyitems(items):
    for item in items:
        function = getattr(getattr(item, "obj", None), "__func__", getattr(item, "obj", None))
        own = getattr(function, "_hypothesis_internal_use_settings", None)
        if own is not None:
            function._hypothesis_internal_use_settings = bounded(own)
