// @langchain/community and @mastra/chroma, unmodified, against the server at CLIENTS_PORT.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { Chroma } from "@langchain/community/vectorstores/chroma";
import { Document } from "@langchain/core/documents";
import { ChromaVector } from "@mastra/chroma";
import { ChromaClient, K, Knn, Rrf, Search } from "chromadb";

const port = Number(process.env.CLIENTS_PORT);
const url = `http://127.0.0.1:${port}`;
const ANIMALS = {
  fox: "the quick brown fox jumps over the lazy dog",
  hen: "a hen sleeps in the barn beside the dog",
  owl: "an owl hunts at night over the quiet field",
  bee: "the bee visits every flower of the field",
};
const LEGS = { fox: 4, hen: 2, owl: 2, bee: 6 };
const names = Object.keys(ANIMALS);

// Texts that share words are near each other.
function embed(text) {
  const vector = new Array(64).fill(0);
  for (const word of text.toLowerCase().match(/\w+/g)) {
    let state = [...word].reduce((hash, letter) => (hash * 31 + letter.charCodeAt(0)) >>> 0, 7);
    for (let i = 0; i < vector.length; i++) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      vector[i] += state / 2 ** 31 - 1;
    }
  }
  return vector;
}

const words = { embedDocuments: async (texts) => texts.map(embed), embedQuery: async (text) => embed(text) };

beforeEach(() => new ChromaClient({ host: "127.0.0.1", port }).reset());

async function langchain() {
  const documents = names.map((name) => new Document({ pageContent: ANIMALS[name], metadata: { name, legs: LEGS[name] } }));
  const store = new Chroma(words, { collectionName: "animals", url });
  await store.addDocuments(documents, { ids: names });
  return store;
}

test("LangChain adds and searches", async () => {
  const store = await langchain();
  const [[document, distance], [, next]] = await store.similaritySearchWithScore("owl at night", 2);
  assert.equal(document.metadata.name, "owl");
  assert.ok(distance <= next);
  const found = await store.similaritySearch("the field", 4, { legs: { $gte: 4 } });
  assert.deepEqual(found.map(({ metadata }) => metadata.name).sort(), ["bee", "fox"]);
});

test("LangChain deletes by ids and filters, and opens a collection that exists", async () => {
  const store = await langchain();
  await store.delete({ ids: ["fox"] });
  await store.delete({ filter: { legs: 6 } });
  const same = await Chroma.fromExistingCollection(words, { collectionName: "animals", url });
  const found = await same.similaritySearch("the field", 4);
  assert.deepEqual(found.map(({ metadata }) => metadata.name).sort(), ["hen", "owl"]);
});

async function mastra() {
  const store = new ChromaVector({ id: "vectors", host: "127.0.0.1", port });
  await store.createIndex({ indexName: "animals", dimension: 64 });
  await store.upsert({
    indexName: "animals", ids: names, vectors: names.map((name) => embed(ANIMALS[name])),
    metadata: names.map((name) => ({ name, legs: LEGS[name] })), documents: names.map((name) => ANIMALS[name]),
  });
  return store;
}

test("Mastra describes, queries and filters", async () => {
  const store = await mastra();
  assert.deepEqual(await store.listIndexes(), ["animals"]);
  assert.deepEqual(await store.describeIndex({ indexName: "animals" }), { dimension: 64, count: 4, metric: "cosine" });
  const queryVector = embed("owl at night");
  const [first] = await store.query({ indexName: "animals", queryVector, topK: 2 });
  assert.equal(first.id, "owl");
  const filter = { $or: [{ legs: { $gt: 4 } }, { name: { $in: ["hen"] } }] };
  const found = await store.query({ indexName: "animals", queryVector, topK: 4, filter, includeVector: true });
  assert.deepEqual(found.map(({ id }) => id).sort(), ["bee", "hen"]);
  assert.equal(found[0].vector.length, 64);
  const [record] = await store.get({ indexName: "animals", documentFilter: { $contains: "flower" } });
  assert.equal(record.id, "bee");
});

test("Mastra searches by fused ranks", async () => {
  const store = await mastra();
  const ranks = ["an owl hunts at night", "hunts over the quiet field"].map((text) => Knn({ query: embed(text), returnRank: true, limit: 4 }));
  const search = new Search().where(K("legs").lte(4)).rank(Rrf({ ranks, k: 60 })).limit(2)
    .select(K.DOCUMENT, K.SCORE, K.METADATA);
  const found = await store.hybridSearch({ indexName: "animals", search });
  assert.equal(found.length, 2);
  assert.equal(found[0].id, "owl");
  assert.equal(found[0].document, ANIMALS.owl);
  assert.ok(found[0].score <= found[1].score);
});

test("Mastra forks, updates and deletes", async () => {
  const store = await mastra();
  await store.forkIndex({ indexName: "animals", newIndexName: "animals-2" });
  await store.updateVector({ indexName: "animals-2", id: "owl", update: { metadata: { name: "eagle" } } });
  await store.deleteVector({ indexName: "animals-2", id: "fox" });
  const ids = async (indexName) => (await store.get({ indexName })).map(({ id }) => id).sort();
  assert.deepEqual(await ids("animals-2"), ["bee", "hen", "owl"]);
  assert.deepEqual(await ids("animals"), [...names].sort());
  const [owl] = await store.get({ indexName: "animals", ids: ["owl"] });
  assert.equal(owl.metadata.name, "owl");
  await store.deleteVectors({ indexName: "animals", filter: { legs: 2 } });
  assert.deepEqual(await ids("animals"), ["bee", "fox"]);
  await store.deleteIndex({ indexName: "animals-2" });
  assert.deepEqual(await store.listIndexes(), ["animals"]);
});
