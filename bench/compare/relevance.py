"""How well dense, ranked text and fused searches find a known document: nDCG@10 and MRR, by family of queries.

    python relevance.py [--data FOLDER] [--count N] [--asked N] [--json FILE]

A query is made from one document, the only right answer. No model is needed, so that anyone can rerun this: the
embedding of a word is the mean of the embeddings of the documents that have it, without the one that is looked for; that
of a query is the sum of those of its words, each weighted by how rare it is. A word that no other document has is
therefore unknown to the embedding, as a product code is to a model. Families, 500 queries each, by a fixed seed:

- keywords: the two rarest words of the document
- paraphrase: four words of the document, each replaced by the word whose embedding is nearest among those that are not in
  the document and do not begin alike
- mixed: two words of the document, and two that are replaced

They are the same for all searches and known before any of these is run. Searches go to an Ochre server over HTTP, the
100 best of each part, fused by reciprocal ranks with the usual constant of 60. Nothing is tuned.
"""

import argparse
import json
import math
import pathlib
import re
import urllib.request

import numpy as np

import data
import report
from server import Server

BATCH, BEST, FUSED, K = 2000, 10, 100, 60
KNOWN_IN, WORDS_MIN, ALIKE = 5, 6, 4
PATH = "/api/v2/tenants/default_tenant/databases/default_database/collections"


def words(text):
    return re.findall(r"[a-z0-9]+", text.lower())


class Encoder:
    """Embeddings of words, from the documents that have them."""

    def __init__(self, documents, vectors):
        self.documents, self.vectors = [list(dict.fromkeys(words(text))) for text in documents], vectors
        self.having = {}
        for number, found in enumerate(self.documents):
            for word in found:
                self.having.setdefault(word, []).append(number)
        self.sums = {word: vectors[numbers].sum(axis=0) for word, numbers in self.having.items()}
        self.rarity = {word: math.log(len(documents) / len(numbers)) for word, numbers in self.having.items()}
        self.known = [word for word, numbers in self.having.items() if len(numbers) >= KNOWN_IN]
        rows = np.stack([self.sums[word] for word in self.known])
        self.rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def word(self, word, target):
        """The embedding of a word without what the target says of it, or nothing."""
        others = len(self.having[word]) - (target in self.having[word])
        if others == 0:
            return None
        own = self.vectors[target] if target in self.having[word] else 0
        vector = self.sums[word] - own
        return vector / np.linalg.norm(vector)

    def query(self, asked, target):
        total = np.zeros(self.vectors.shape[1], np.float32)
        for word in asked:
            vector = self.word(word, target)
            if vector is not None:
                total += self.rarity[word] * vector
        norm = np.linalg.norm(total)
        return total / norm if norm > 0 else np.ones_like(total) / len(total) ** 0.5

    def replacement(self, word, target):
        """The word nearest in meaning that the target does not have, or nothing."""
        vector = self.word(word, target)
        if vector is None:
            return None
        order = np.argsort(-(self.rows @ vector))[:200]
        fitting = (self.known[at] for at in order if self.known[at][:ALIKE] != word[:ALIKE])
        return next((other for other in fitting if other not in self.documents[target]), None)


def queries(encoder, asked):
    """Families of (words, target)."""
    chance = np.random.default_rng(5)
    long_enough = [number for number, found in enumerate(encoder.documents) if len(found) >= WORDS_MIN]
    families = {"keywords": [], "paraphrase": [], "mixed": []}
    for family, made in families.items():
        for target in chance.permutation(long_enough):
            found = encoder.documents[target]
            if family == "keywords":
                chosen = sorted(found, key=lambda word: -encoder.rarity[word])[:2]
            else:
                chosen = [found[at] for at in chance.permutation(len(found))[:4]]
                kept = 0 if family == "paraphrase" else 2
                replaced = [encoder.replacement(word, target) for word in chosen[kept:]]
                if None in replaced:
                    continue
                chosen = chosen[:kept] + replaced
            made.append((chosen, int(target)))
            if len(made) == asked:
                break
    return families


class Client:
    def __init__(self, port):
        self.base = f"http://127.0.0.1:{port}{PATH}"

    def post(self, path, body):
        request = urllib.request.Request(self.base + path, json.dumps(body).encode(), {"content-type": "application/json"})
        return json.loads(urllib.request.urlopen(request).read())


def expressions(asked, vector):
    """What each kind of search is ranked by."""
    text = {"query": " ".join(asked), "key": "#document", "limit": FUSED}
    dense = {"query": [round(float(x), 6) for x in vector], "limit": FUSED}
    part = lambda knn: {"$knn": {**knn, "return_rank": True, "default": 10 * FUSED}}
    term = lambda knn: {"$div": {"left": {"$val": 1}, "right": {"$sum": [{"$val": K}, part(knn)]}}}
    fused = {"$mul": [{"$val": -1}, {"$sum": [term(dense), term(text)]}]}
    return {"dense": {"$knn": dense}, "BM25": {"$knn": text}, "RRF": fused}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data.add_arguments(parser)
    parser.add_argument("--asked", type=int, default=500)
    arguments = parser.parse_args()
    found, vectors = data.read(arguments.data) if arguments.data else data.invented(arguments.count)
    documents, vectors = [record["document"] or "" for record in found][: arguments.count], vectors[: arguments.count]
    encoder = Encoder(documents, vectors)
    families = queries(encoder, arguments.asked)
    server = Server("ochre").start()
    try:
        client = Client(server.port)
        schema = {"defaults": {}, "keys": {"#embedding": {"float_list": {"vector_index": {
            "enabled": True, "config": {"space": "cosine", "hnsw": {"ef_search": 200}}}}}}}
        collection = "/" + client.post("", {"name": "relevance", "schema": schema})["id"]
        for start in range(0, len(documents), BATCH):
            part = range(start, min(start + BATCH, len(documents)))
            client.post(f"{collection}/add", {
                "ids": [str(number) for number in part], "documents": [documents[number] for number in part],
                "embeddings": vectors[part.start : part.stop].round(6).tolist()})
        result = {"machine": report.machine(), "documents": len(documents), "asked": arguments.asked, "families": {}}
        for family, asked in [*families.items(), ("all", sum(families.values(), []))]:
            ranks = {}
            for text, target in asked:
                kinds = expressions(text, encoder.query(text, target))
                searches = [{"rank": rank, "limit": {"limit": FUSED}} for rank in kinds.values()]
                answers = client.post(f"{collection}/search", {"searches": searches})["ids"]
                for kind, ids in zip(kinds, answers):
                    ranks.setdefault(kind, []).append(ids.index(str(target)) + 1 if str(target) in ids else math.inf)
            result["families"][family] = {
                kind: {
                    "ndcg": float(np.mean([1 / math.log2(1 + rank) if rank <= BEST else 0 for rank in of])),
                    "mrr": float(np.mean([1 / rank for rank in of])),
                }
                for kind, of in ranks.items()
            }
    finally:
        server.remove()
    rows = [
        [family, *(f"{kinds[kind][measure]:.3f}" for measure in ("ndcg", "mrr") for kind in kinds)]
        for family, kinds in result["families"].items()
    ]
    kinds = ["dense", "BM25", "RRF"]
    print(report.table(["family", *(f"{kind} {m}" for m in ("nDCG@10", "MRR") for kind in kinds)], rows))
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
