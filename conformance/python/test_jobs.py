"""Jobs, backups and metrics as a user meets them: over HTTP, on the command line, through the official client."""

import base64
import hashlib
import hmac
import http.server
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.request

import chromadb
import pytest
from test_security import ROOT as ROOT_KEY
from test_security import Guarded
from server import OCHRE, ROOT, Server, free_port

pytestmark = pytest.mark.ochre_only("Chroma has no jobs, backups or metrics")

CONTRACT = {"name", "state", "trigger", "next_runs", "last_run", "last_outcome", "progress"}
JOBS = "index-sync memory log-prune vacuum compact index-rebuild backup check schema-audit".split()


def ochre(*arguments, **options):
    return subprocess.run([str(OCHRE), *map(str, arguments)], capture_output=True, text=True, **options)


def test_every_job_is_listed_with_when_it_is_due(raw):
    status, _, answer = raw("GET", "/_admin/jobs")
    jobs = {job["name"]: job for job in answer["jobs"]}
    assert status == 200 and set(JOBS) <= set(jobs)
    assert all(CONTRACT <= set(job) for job in jobs.values())
    assert jobs["backup"]["state"] == "off" and jobs["backup"]["next_runs"] == []
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", jobs["vacuum"]["next_runs"][0])


def test_a_job_is_run_paused_resumed_and_changed(raw):
    status, _, _ = raw("POST", "/_admin/jobs/check/run")
    assert status == 202
    deadline = time.monotonic() + 30
    while not (job := raw("GET", "/_admin/jobs/check")[2])["history"] and time.monotonic() < deadline:
        time.sleep(0.05)
    while (job := raw("GET", "/_admin/jobs/check")[2])["history"][0]["status"] == "running":
        time.sleep(0.05)
    assert job["last_outcome"] == "succeeded" and "sound" in job["history"][0]["message"]
    assert raw("POST", "/_admin/jobs/vacuum/pause")[2]["state"] == "paused"
    assert raw("POST", "/_admin/jobs/vacuum/resume")[2]["state"] == "scheduled"
    change = {"cron": "0 3 * * *", "zone": "Europe/Berlin", "settings": {"free_share": 0.5}, "policies": {"priority": 3}}
    status, _, job = raw("PATCH", "/_admin/jobs/vacuum", change)
    assert status == 200 and job["trigger"] == "cron 0 3 * * * Europe/Berlin"
    assert job["settings"]["free_share"]["value"] == 0.5 and job["policies"]["priority"] == 3
    raw("PATCH", "/_admin/jobs/vacuum", {"interval": "30s", "settings": {"free_share": None}, "policies": {"priority": None}})


@pytest.mark.parametrize(
    "change, part",
    [
        ({"cron": "61 * * * *"}, "minute"),
        ({"cron": "0 0 * * *", "zone": "Mars/Base"}, "Mars/Base"),
        ({"interval": "0s"}, "interval"),
        ({"settings": {"free_shar": 1}}, "did you mean 'free_share'"),
        ({"settings": {"free_share": 7}}, "between 0 and 1"),
        ({"policies": {"overlap": "maybe"}}, "maybe"),
        ({"policies": {"retries": -1}}, "'retries' is -1"),
        ({"policies": {"timeout": "0s"}}, "timeout"),
        ({"cron": "0 0 31 2 *"}, "never comes"),
        ({"intervall": "5m"}, "did you mean 'interval'"),
    ],
)
def test_a_bad_change_is_refused_and_changes_nothing(raw, change, part):
    before = raw("GET", "/_admin/jobs/vacuum")[2]["schedule"]
    status, _, answer = raw("PATCH", "/_admin/jobs/vacuum", change)
    assert status == 400 and part in answer["message"], answer
    assert raw("GET", "/_admin/jobs/vacuum")[2]["schedule"] == before


def test_the_command_prints_the_servers_answers_as_they_are(server):
    for call, state in [(["pause"], "paused"), (["resume"], None), (["run"], None), (["run", "--detach"], None)]:
        told = ochre("jobs", *call, "vacuum", "--json", "--port", server.port)
        assert told.returncode == 0, told
        job = json.loads(told.stdout)
        assert state is None or job["state"] == state


def test_an_unknown_job_is_not_found_and_the_right_one_named(raw):
    status, _, answer = raw("POST", "/_admin/jobs/vaccum/run")
    assert status == 404 and "did you mean 'vacuum'" in answer["message"]


def test_the_command_line_shows_and_runs_jobs(server):
    port = ["--port", server.port]
    assert "index-sync" in ochre("jobs", "list", *port).stdout
    assert "free_share" in ochre("jobs", "show", "vacuum", *port).stdout
    ran = ochre("jobs", "run", "optimize", *port)
    assert ran.returncode == 0 and ran.stdout.startswith("succeeded"), ran
    assert "manual" in ochre("jobs", "history", "optimize", *port).stdout
    failed = ochre("jobs", "run", "backup", *port)
    assert failed.returncode == 1 and "[backup]" in failed.stdout
    assert "did you mean 'vacuum'" in ochre("jobs", "pause", "vaccum", *port).stderr


def test_metrics_are_prometheus_text(server, client):
    client.create_collection("counted", embedding_function=None).add(ids=["a"], embeddings=[[1.0]])
    answer = urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    text = answer.read().decode()
    line = re.compile(r'(# (HELP|TYPE) .+|[a-z_]+(\{([a-z]+="[^"]*",?)*\})? [-+0-9.eInf]+)')
    assert all(line.fullmatch(each) for each in text.splitlines())
    assert 'ochre_job_state{job="vacuum",state="scheduled"} 1' in text
    assert re.search(r'ochre_request_seconds_count\{method="POST",route=".*/add",status="201"\} [1-9]', text)
    assert re.search(r"ochre_resident_bytes [1-9]\d+", text)


def filled(directory, *lines):
    """A server with a backup target, and a collection of a thousand records."""
    server = Server("ochre")
    config = pathlib.Path(server.directory) / "ochre.toml"
    config.write_text("\n".join(lines) + f'\n[backup]\ntarget = "{directory}"\n')
    server.extra = ("--config", str(config))
    server.start()
    client = chromadb.HttpClient(host="127.0.0.1", port=server.port)
    notes = client.create_collection("notes", embedding_function=None)
    numbers = range(1000)
    notes.add(
        ids=[str(n) for n in numbers],
        embeddings=[[float(n), 1.0] for n in numbers],
        documents=[f"document {n}" for n in numbers],
        metadatas=[{"n": n} for n in numbers],
    )
    return server, notes


def backed_up_and_restored(server, notes, target, tmp_path):
    port = ["--port", server.port]
    first = ochre("backup", "now", *port)
    assert first.returncode == 0 and "-full" in first.stdout, first
    notes.delete(ids=[str(n) for n in range(500)])
    notes.update(ids=["700"], documents=["changed"], embeddings=[[0.5, 0.5]])
    second = ochre("backup", "now", "--incremental", *port)
    assert second.returncode == 0 and "-incremental" in second.stdout, second
    notes.delete(ids=["999"])
    listed = ochre("backup", "list", "--from", target).stdout.splitlines()
    assert len(listed) == 3 and "1000 in 1" in listed[1] and "500 in 1" in listed[2]
    assert ochre("backup", "verify", "--from", target).returncode == 0
    ran = ochre("jobs", "run", "backup-verify", *port)
    assert ran.returncode == 0 and "restored and checked" in ran.stdout, ran
    server.stop()
    for at, count in [(listed[1].split()[0], 1000), ("latest", 500)]:
        into = tmp_path / f"restored-{count}"
        restored = ochre("restore", "--from", target, "--at", at, "--into", into)
        assert restored.returncode == 0, restored
        assert ochre("check", "--path", into).returncode == 0
        again = Server("ochre")
        again.data = str(into)
        try:
            again.start()
            found = chromadb.HttpClient(host="127.0.0.1", port=again.port).get_collection("notes", embedding_function=None)
            assert found.count() == count
            nearest = found.query(query_embeddings=[[700.0, 1.0]], n_results=1)
            assert nearest["ids"] == [["700" if count == 1000 else "699"]] or nearest["ids"] == [["701"]]
            assert found.get(ids=["700"])["documents"] == ["document 700" if count == 1000 else "changed"]
        finally:
            again.remove()


def test_backups_in_a_directory_restore_to_what_was_there(tmp_path):
    target = tmp_path / "target"
    server, notes = filled(target)
    try:
        backed_up_and_restored(server, notes, target, tmp_path)
        chunk = max((file for file in target.glob("chunks/*/*")), key=lambda file: file.stat().st_size)
        damaged = bytearray(chunk.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        chunk.write_bytes(damaged)
        found = ochre("backup", "verify", "--from", target)
        assert found.returncode == 3 and chunk.name in found.stdout
        refused = ochre("restore", "--from", target, "--into", tmp_path / "broken")
        assert refused.returncode == 3 and chunk.name in refused.stderr and not (tmp_path / "broken").exists()
        # A misspelt target must not look like sound backups.
        none = ochre("backup", "verify", "--from", tmp_path / "tarrget")
        assert none.returncode == 1 and "there are no backups at" in none.stderr and "tarrget" in none.stderr
        assert "there are no backups at" in ochre("backup", "list", "--from", tmp_path / "tarrget").stderr
    finally:
        server.remove()


def test_backups_in_an_s3_store_restore_to_what_was_there(tmp_path, monkeypatch):
    port = free_port()
    python = pathlib.Path(os.environ.get("S3_PYTHON", ROOT / ".cache/s3/bin/python"))
    assert python.exists(), "`cargo xtask test` makes the environment of the store; or name one in S3_PYTHON"
    command = [str(python), "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    store = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path)
    environment = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ALLOW_HTTP": "true",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    server = None
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < deadline and store.poll() is None, "the store does not start"
                time.sleep(0.1)
        make = urllib.request.Request(f"http://127.0.0.1:{port}/backups", method="PUT")
        urllib.request.urlopen(make).read()
        server, notes = filled("s3://backups/of/ochre")
        backed_up_and_restored(server, notes, "s3://backups/of/ochre", tmp_path)
        missing = ochre("backup", "list", "--from", "s3://nowhere/at-all")
        assert missing.returncode == 1 and "s3://nowhere/at-all" in missing.stderr
    finally:
        if server is not None:
            server.remove()
        store.kill()
        store.wait()


def test_a_misnamed_job_in_the_configuration_stops_the_start(tmp_path):
    config = tmp_path / "ochre.toml"
    config.write_text("[jobs.vacum]\ninterval = '5m'\n")
    started = ochre("run", "--path", tmp_path / "data", "--port", 0, "--config", config, timeout=60, env=os.environ)
    assert started.returncode != 0 and "did you mean 'vacuum'" in started.stderr, started


def test_a_body_that_nobody_wants_does_not_end_the_connection(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        for path in ("/_admin/jobs/vacuum/resume", "/_admin/nope", "/_admin/jobs/nope/run") * 2:
            head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 4\r\n\r\n"
            connection.sendall(head.encode())
            # The answer comes before the body does.
            answer = connection.recv(1 << 16)
            assert answer.startswith(b"HTTP/1.1 "), (path, answer)
            connection.sendall(b"null")


def wait_until(condition, patience=60):
    deadline = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)
    return found


class Endpoint(http.server.BaseHTTPRequestHandler):
    """Takes webhooks; the first as many as it is told to it answers with 500."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.seen.append((dict(self.headers), body))
        self.server.refusing -= 1
        self.send_response(500 if self.server.refusing >= 0 else 204)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def endpoint():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    server.seen, server.refusing = [], 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def signed(headers, body, secret):
    text = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(base64.b64decode(secret), text, hashlib.sha256).digest()).decode()
    return headers["webhook-signature"] == f"v1,{expected}"


SECRET = base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
V2 = "/api/v2/tenants/default_tenant/databases/default_database/collections"


@pytest.fixture
def hooked(tmp_path, monkeypatch, endpoint):
    monkeypatch.setenv("OCHRE_WEBHOOK_SECRET", f"whsec_{SECRET}")
    server = Guarded(f"""
[backup]
targets = ["offsite={tmp_path}/offsite"]
[webhooks]
endpoints = ["ops=http://127.0.0.1:{endpoint.server_port}/hook"]
jobs = "ops"
""")
    server.start()
    yield server
    server.remove()


def test_users_make_jobs_that_run_with_what_they_may(hooked, endpoint, tmp_path):
    ask, films = hooked.ask, {}
    for name in ["films", "books"]:
        films[name] = ask("POST", V2, {"name": name})[2]["id"]
        records = {"ids": [f"r{n}" for n in range(2500)], "embeddings": [[n, 1.0] for n in range(2500)],
                   "metadatas": [{"old": n % 2 == 0} for n in range(2500)]}
        assert ask("POST", f"{V2}/{films[name]}/add", records)[0] == 201
    delete = {"name": "tidy", "task": "delete", "arguments": {"collection": "films", "where": {"old": True}}, "trigger": {"interval": "1d"}}
    status, _, made = ask("POST", "/_admin/jobs", delete)
    assert status == 201 and made["trigger"] == "every 24h" and made["made_by"] == "root" and made["task"] == "delete"
    assert ask("POST", "/_admin/jobs/tidy/run")[0] == 202
    done = lambda name: wait_until(lambda: next((run for run in ask("GET", f"/_admin/jobs/{name}")[2]["history"] if run["ended"]), None))
    assert done("tidy")["message"] == "deleted 1250 records"
    assert ask("GET", f"{V2}/{films['films']}/count")[2] == 1250 and ask("GET", f"{V2}/{films['books']}/count")[2] == 2500
    # A backup goes to a target that the configuration names.
    assert ask("POST", "/_admin/jobs", {"name": "away", "task": "backup", "arguments": {"target": "offsite"}, "trigger": {"delay": "200ms"}})[0] == 201
    assert done("away")["status"] == "succeeded" and list((tmp_path / "offsite/manifests").iterdir())
    # A webhook is signed.
    ask("POST", "/_admin/jobs", {"name": "ping", "task": "webhook", "arguments": {"webhook": "ops", "body": {"a": 1}}, "trigger": {"delay": "100ms"}})
    assert done("ping")["status"] == "succeeded"
    headers, body = endpoint.seen[-1]
    assert json.loads(body) == {"type": "job.due", "data": {"job": "ping", "body": {"a": 1}}} and signed(headers, body, SECRET)
    # They are there after a crash, and listed with what is said of them.
    hooked.stop(9)
    hooked.start()
    listed = {job["name"]: job for job in ask("GET", "/_admin/jobs")[2]["jobs"]}
    assert listed["tidy"]["arguments"] == delete["arguments"] and listed["tidy"]["state"] == "scheduled"
    assert listed["away"]["state"] == listed["ping"]["state"] == "finished"
    assert ask("PATCH", "/_admin/jobs/tidy", {"interval": "48h"})[2]["trigger"] == "every 48h"
    assert ask("DELETE", "/_admin/jobs/tidy")[2] == {"deleted": "tidy"}
    assert ask("GET", "/_admin/jobs/tidy")[0] == 404
    assert ask("POST", "/_admin/jobs", delete)[0] == 201, "its name is free again"


def test_what_a_job_cannot_be_is_refused_and_nothing_is_made(hooked):
    ask = hooked.ask
    ask("POST", V2, {"name": "films"})
    good = {"name": "x", "task": "delete", "arguments": {"collection": "films", "where": {"old": True}}, "trigger": {"interval": "1d"}}
    for change, status, words in [
        ({"name": "X y"}, 400, "no name of a job"), ({"name": "vacuum"}, 409, "there is a job 'vacuum' already"), ({"task": "delte"}, 400, "did you mean 'delete'?"),
        ({"arguments": {"collection": "films"}}, 400, "every record would be deleted"), ({"arguments": {"collection": "films", "where": {"$and": []}}}, 400, "every record"),
        ({"arguments": {"collection": "films", "wher": {}}}, 400, "did you mean 'where'?"), ({"arguments": {"collection": "flims", "where": {"a": 1}}}, 404, "flims"),
        ({"trigger": {}}, 400, "say when"), ({"trigger": {"interval": "0s"}}, 400, "interval"), ({"trigger": {"once": "2020-01-01T00:00:00Z"}}, 400, "has passed"),
        ({"trigger": {"intervall": "1d"}}, 400, "did you mean 'interval'?"), ({"trigger": {"interval": "1d", "cron": "@daily"}}, 400, "one of"), ({"taks": 1}, 400, "did you mean 'task'?"),
        ({"task": "backup", "arguments": {"target": "ofsite"}}, 400, "did you mean 'offsite'?"), ({"task": "backup", "arguments": {"target": "s3://evil/x"}}, 400, "no target"),
        ({"task": "webhook", "arguments": {"webhook": "http://evil.example"}}, 400, "no webhook"),
    ]:
        found, _, answer = ask("POST", "/_admin/jobs", {**good, **change})
        assert (found, words in answer["message"]) == (status, True), (change, answer)
    assert ask("GET", "/_admin/jobs/x")[0] == 404
    status, _, answer = ask("DELETE", "/_admin/jobs/vacuum")
    assert status == 400 and "switch it off" in answer["message"]
    # Whoever may not write records deletes none, now or later.
    keeper = hooked.key("operator")
    found, _, answer = ask("POST", "/_admin/jobs", good, keeper)
    assert found == 404 or found == 403, answer
    made = ask("POST", "/_admin/keys", {"name": "app", "grants": ["admin"]})[2]
    assert ask("POST", "/_admin/jobs", {**good, "name": "theirs"}, made["key"])[0] == 201
    ask("DELETE", f"/_admin/keys/{made['id']}")
    ask("POST", "/_admin/jobs/theirs/run")
    ended = wait_until(lambda: next((run for run in ask("GET", "/_admin/jobs/theirs")[2]["history"] if run["ended"]), None))
    assert ended["status"] == "failed" and "revoked" in ended["message"]


def test_a_webhook_is_told_of_jobs_that_fail_break_and_recover(hooked, endpoint):
    ask = hooked.ask
    ask("POST", V2, {"name": "films"})
    job = {"name": "tidy", "task": "delete", "arguments": {"collection": "films", "where": {"old": True}}, "trigger": {"interval": "1d"}}
    ask("POST", "/_admin/jobs", job)
    ask("PATCH", "/_admin/jobs/tidy", {"policies": {"broken_after": 2}})
    ask("DELETE", f"{V2}/films")
    endpoint.refusing = 1
    events = lambda: [json.loads(body) for _, body in endpoint.seen]
    kinds = lambda: [event["type"] for event in events()]
    ask("POST", "/_admin/jobs/tidy/run")
    # Refused once, it is posted again, under the same id.
    wait_until(lambda: kinds() == ["job.failed"] * 2)
    ids = {headers["webhook-id"] for headers, _ in endpoint.seen}
    assert len(ids) == 1 and all(signed(headers, body, SECRET) for headers, body in endpoint.seen)
    assert events()[0]["data"]["job"] == "tidy" and "films" in events()[0]["data"]["message"]
    ask("POST", "/_admin/jobs/tidy/run")
    wait_until(lambda: kinds()[2:] == ["job.broken"])
    ask("POST", V2, {"name": "films"})
    # It counts from the failures, as long as nobody resumed it.
    ask("POST", "/_admin/jobs/tidy/run")
    wait_until(lambda: kinds()[3:] == ["job.recovered"])


def test_the_command_line_changes_schedules_and_waits_beside_a_fast_one(server, raw):
    port = ["--port", server.port]
    changed = ochre("jobs", "schedule", "sweep", "--interval", "10ms", *port)
    assert changed.returncode == 0 and "every 10ms" in changed.stderr
    started = time.monotonic()
    ran = ochre("jobs", "run", "sweep", *port, timeout=60)
    assert ran.returncode == 0 and "succeeded" in ran.stdout and time.monotonic() - started < 30
    once = ochre("jobs", "schedule", "vacuum", "--delay", "10m", *port)
    assert once.returncode == 0 and raw("GET", "/_admin/jobs/vacuum")[2]["pending"][0]["kind"] == "once"
    past = ochre("jobs", "schedule", "vacuum", "--once", "2020-01-01T00:00:00Z", *port)
    assert past.returncode == 1 and "has passed" in past.stderr
    for name in ("sweep", "vacuum"):
        assert ochre("jobs", "reset", name, *port).returncode == 0
    assert raw("GET", "/_admin/jobs/vacuum")[2]["pending"] == []
    assert raw("DELETE", "/_admin/jobs/sweep/schedule")[0] == 200


def test_a_time_that_has_passed_in_the_configuration_stops_the_start(tmp_path):
    (tmp_path / "ochre.toml").write_text('[jobs.vacuum]\nonce = "2020-01-01T00:00:00Z"\n')
    run = ochre("run", "--path", tmp_path / "data", "--port", free_port(), cwd=tmp_path, timeout=30)
    assert run.returncode == 2 and "has passed" in run.stderr and "vacuum" in run.stderr, run.stderr


def test_a_target_that_cannot_be_used_is_said_at_the_start_and_in_the_jobs(tmp_path):
    (tmp_path / "target").write_text("a file")
    server = filled(tmp_path / "target")[0]
    try:
        jobs = lambda: {job["name"]: job for job in json.loads(urllib.request.urlopen(f"http://127.0.0.1:{server.port}/_admin/jobs").read())["jobs"]}
        wait_until(lambda: str(tmp_path) in (jobs()["backup"]["warning"] or ""))
        assert "backups cannot be taken" in server.log()
    finally:
        server.remove()


def test_jobs_of_users_wait_in_a_restored_copy_and_can_always_be_deleted(hooked, tmp_path):
    ask = hooked.ask
    ask("POST", V2, {"name": "films"})
    job = {"name": "tidy", "task": "delete", "arguments": {"collection": "films", "where": {"old": True}}, "trigger": {"interval": "1s"}}
    assert ask("POST", "/_admin/jobs", job)[0] == 201
    assert ask("POST", "/_admin/jobs", {"name": "away", "task": "backup", "arguments": {"target": "offsite"}, "trigger": {"delay": "100ms"}})[0] == 201
    wait_until(lambda: next((run for run in ask("GET", "/_admin/jobs/away")[2]["history"] if run["status"] == "succeeded"), None))
    hooked.stop()
    restored = ochre("restore", "--from", tmp_path / "offsite", "--into", tmp_path / "copy", timeout=60)
    assert restored.returncode == 0, restored.stderr
    shutil.rmtree(hooked.data)
    shutil.move(tmp_path / "copy", hooked.data)
    hooked.start()
    assert ask("GET", "/_admin/jobs/tidy")[2]["state"] == "paused", "what it deletes may be what was to be rescued"
    assert ask("POST", "/_admin/jobs/tidy/resume")[2]["state"] in ("scheduled", "running")
    hooked.stop()
    hooked.start()
    assert ask("GET", "/_admin/jobs/tidy")[2]["state"] != "paused"
    # Values are for who may see them.
    operator = hooked.key("operator")
    assert "where" not in ask("GET", "/_admin/jobs/tidy", None, operator)[2]["arguments"]
    large = {**job, "name": "large", "task": "webhook", "arguments": {"webhook": "ops", "body": "x" * 70_000}}
    status, _, answer = ask("POST", "/_admin/jobs", large)
    assert status == 400 and "65536" in answer["message"]
    assert ask("DELETE", "/_admin/jobs/tidy")[0] == 200


def test_secrets_of_webhooks_are_checked_and_not_shown(tmp_path, monkeypatch):
    config = tmp_path / "ochre.toml"
    config.write_text('[webhooks]\nendpoints = ["ops=https://hooks.example.com/services/S3CRET"]\njobs = "ops"\n')
    shown = ochre("config", "show", "--config", config)
    assert "S3CRET" not in shown.stdout and "ops=https://hooks.example.com/" in shown.stdout
    monkeypatch.setenv("OCHRE_WEBHOOK_SECRET", "short")
    refused = ochre("run", "--config", config, "--path", tmp_path / "data", "--port", free_port(), timeout=30)
    assert refused.returncode == 2 and "24 bytes" in refused.stderr and not (tmp_path / "data").exists()


def test_a_server_that_was_named_is_asked_and_not_that_of_the_environment(server, monkeypatch):
    monkeypatch.setenv("OCHRE_URL", "http://127.0.0.1:1")
    assert ochre("health", timeout=30).returncode == 5
    assert ochre("health", "--port", server.port, timeout=30).returncode == 0
    assert ochre("health", "--url", f"http://127.0.0.1:{server.port}/", timeout=30).returncode == 0
