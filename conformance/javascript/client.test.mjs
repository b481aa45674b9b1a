// The npm package `chromadb`, unmodified, against the server at OCHRE_PORT.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { AdminClient, ChromaClient, GroupBy, K, Knn, MinK, Rrf, Search } from "chromadb";

const where = { host: "127.0.0.1", port: Number(process.env.OCHRE_PORT), ssl: false };
const client = new ChromaClient(where);
const plain = { embeddingFunction: null };

beforeEach(async () => {
  await client.reset();
});

async function notes() {
  const collection = await client.createCollection({ name: "notes", ...plain });
  await collection.add({
    ids: ["a", "b", "c"],
    embeddings: [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    documents: ["the red apple", "a green pear", "red wine"],
    metadatas: [{ n: 1, s: "x" }, { n: 2 }, { n: 2.5, s: "x" }],
  });
  return collection;
}

test("the server says what it is", async () => {
  assert.ok((await client.heartbeat()) > 1.6e18);
  assert.match(await client.version(), /^\d+\.\d+\.\d+$/);
});

test("collections are made, listed, counted and deleted", async () => {
  const made = await client.createCollection({ name: "first", metadata: { a: 1 }, ...plain });
  const same = await client.getOrCreateCollection({ name: "first", ...plain });
  assert.equal(same.id, made.id);
  assert.equal(await client.countCollections(), 1);
  assert.deepEqual((await client.listCollections()).map((c) => c.name), ["first"]);
  await client.deleteCollection({ name: "first" });
  await assert.rejects(client.getCollection({ name: "first", ...plain }), /not be found|not exist|not found/i);
});

test("a name that is taken is a unique error", async () => {
  await client.createCollection({ name: "taken", ...plain });
  await assert.rejects(client.createCollection({ name: "taken", ...plain }), (error) => error.name === "ChromaUniqueError");
});

test("records are added, fetched, changed and deleted", async () => {
  const collection = await notes();
  assert.equal(await collection.count(), 3);
  assert.deepEqual((await collection.get({ where: { s: "x" } })).ids, ["a", "c"]);
  assert.deepEqual((await collection.get({ whereDocument: { $contains: "red" } })).ids, ["a", "c"]);
  await collection.update({ ids: ["a"], metadatas: [{ n: 7 }] });
  await collection.upsert({ ids: ["d"], embeddings: [[1, 1, 1]], documents: ["new"] });
  assert.deepEqual((await collection.get({ ids: ["a"] })).metadatas, [{ n: 7, s: "x" }]);
  await collection.delete({ where: { n: { $gt: 2 } } });
  assert.deepEqual((await collection.get()).ids, ["b", "d"]);
  assert.deepEqual((await collection.peek({ limit: 1 })).ids, ["b"]);
});

test("queries find the nearest, filtered and not", async () => {
  const collection = await notes();
  const found = await collection.query({ queryEmbeddings: [[1, 0.1, 0]], nResults: 2 });
  assert.deepEqual(found.ids, [["a", "b"]]);
  assert.ok(Math.abs(found.distances[0][0] - 0.01) < 1e-6);
  const filtered = await collection.query({ queryEmbeddings: [[1, 0, 0]], nResults: 5, where: { n: { $gte: 2 } } });
  assert.deepEqual(filtered.ids[0].toSorted(), ["b", "c"]);
});

test("searches score, fuse, group and select", async () => {
  const collection = await notes();
  const near = Knn({ query: [1, 0.1, 0], limit: 3 });
  const ranked = { query: [1, 0.1, 0], limit: 3, returnRank: true };
  const found = await collection.search([
    new Search().rank(near).limit(2).select(K.SCORE, K.DOCUMENT),
    new Search().where(K.ID.isIn(["b", "c"])),
    new Search().rank(Rrf({ ranks: [Knn(ranked), Knn(ranked)] })).limit(1).select(K.SCORE),
    new Search().rank(near).groupBy(new GroupBy([K("s")], new MinK([K.SCORE], 1))),
  ]);
  assert.deepEqual(found.ids, [["a", "b"], ["b", "c"], ["a"], ["a", "b"]]);
  assert.deepEqual(found.documents[0], ["the red apple", "a green pear"]);
  assert.ok(Math.abs(found.scores[2][0] + 2 / 60) < 1e-6);
});

test("a wrong dimension is refused as a bad request", async () => {
  const collection = await notes();
  await assert.rejects(collection.add({ ids: ["x"], embeddings: [[1, 2]] }), /dimension of 3, got 2/);
  assert.equal(await collection.count(), 3);
});

test("a collection is renamed and reconfigured", async () => {
  const collection = await notes();
  await collection.modify({ name: "renamed", metadata: { b: 2 } });
  assert.equal((await client.getCollection({ name: "renamed", ...plain })).id, collection.id);
});

test("tenants and databases are kept apart", async () => {
  const admin = new AdminClient(where);
  await admin.createTenant({ name: "acme" });
  await admin.createDatabase({ name: "books", tenant: "acme" });
  assert.deepEqual((await admin.listDatabases({ tenant: "acme" })).map((d) => d.name), ["books"]);
  const other = new ChromaClient({ ...where, tenant: "acme", database: "books" });
  assert.equal(await other.countCollections(), 0);
});
