// Schemas through the npm package `chromadb`, unmodified: declared, enforced in each mode, changed.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { ChromaClient } from "chromadb";

const client = new ChromaClient({ host: "127.0.0.1", port: Number(process.env.OCHRE_PORT), ssl: false });
const schema = { year: { type: "int", required: true }, score: "float", genre: { enum: ["drama", "comedy"] } };

beforeEach(async () => {
  await client.reset();
});

async function films(mode) {
  const metadata = { "chroma:schema": schema, "chroma:schema_validation_type": mode };
  return client.createCollection({ name: "films", metadata, embeddingFunction: null });
}

const add = (collection, id, metadata) => collection.add({ ids: [id], embeddings: [[1, 0]], metadatas: [metadata] });

// JavaScript has no floats: 7.0 is sent as 7, which a float takes in every mode.
for (const mode of ["strict", "lax", "warn", "none"]) {
  test(`a good record is accepted in the mode ${mode}`, async () => {
    const collection = await films(mode);
    await add(collection, "a", { year: 1999, score: 7.0, genre: "drama" });
    assert.equal(await collection.count(), 1);
  });

  test(`what breaks the schema is handled by the mode ${mode}`, async () => {
    const collection = await films(mode);
    const isRefused = mode === "strict" || mode === "lax";
    for (const [key, metadata] of [["year", { year: "x" }], ["year", { score: 1.5 }], ["genre", { year: 1, genre: "noise" }]]) {
      const added = add(collection, `bad-${JSON.stringify(metadata)}`, metadata);
      if (isRefused) {
        await assert.rejects(added, (error) => error.message.includes(key));
      } else {
        await added;
      }
    }
    const undeclared = add(collection, "more", { year: 1, color: "red" });
    if (mode === "strict") {
      await assert.rejects(undeclared, /color/);
    } else {
      await undeclared;
    }
    assert.equal(await collection.count(), { strict: 0, lax: 1, warn: 4, none: 4 }[mode]);
  });
}

test("a schema is changed as a string, and outlives changes that do not name it", async () => {
  const collection = await films("strict");
  await collection.modify({ metadata: { owner: "me" } });
  const again = await client.getCollection({ name: "films", embeddingFunction: null });
  assert.deepEqual(JSON.parse(again.metadata["chroma:schema"]), schema);
  // What was read can be sent back.
  await again.modify({ metadata: { ...again.metadata, owner: "you" } });
  await assert.rejects(add(again, "bad", { year: "x" }), /year/);
  await again.modify({ metadata: { "chroma:schema": JSON.stringify({ year: "string" }) } });
  await add(again, "good", { year: "x" });
  await assert.rejects(again.modify({ metadata: { "chroma:schema": '{"year": "integr"}' } }), /\/year/);
  await assert.rejects(add(again, "bad", { year: 5 }), /year/);
});
