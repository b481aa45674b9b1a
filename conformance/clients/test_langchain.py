"""What langchain-chroma has beyond its own tests: hybrid search, forks, sorting out by filters, other tenants."""

import asyncio

import chromadb
import pytest
from chromadb import K, Knn, Rrf, Schema, Search
from chromadb.api.types import SparseEmbeddingFunction, SparseVectorIndexConfig
from chromadb.base_types import SparseVector
from chromadb.utils.embedding_functions import register_sparse_embedding_function
from langchain_chroma import Chroma
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings

from words import ANIMALS, LEGS, embed, terms


class Words(Embeddings):
    def embed_documents(self, texts):
        return [embed(text) for text in texts]

    def embed_query(self, text):
        return embed(text)


@register_sparse_embedding_function
class Terms(SparseEmbeddingFunction):
    """As the client keeps sparse embedding functions: by name and configuration."""

    def __init__(self):
        pass

    def __call__(self, input):
        return [SparseVector(indices=sorted(counts := terms(text)), values=[counts[index] for index in sorted(counts)])
                for text in input]

    @staticmethod
    def name():
        return "terms"

    def get_config(self):
        return {}

    @staticmethod
    def build_from_config(config):
        return Terms()


@pytest.fixture
def store():
    store = Chroma("animals", Words(), host="localhost")
    store.add_documents([Document(page_content=text, metadata={"legs": LEGS[name], "name": name}, id=name)
                         for name, text in ANIMALS.items()])
    return store


def test_search_with_filters(store):
    found = store.similarity_search_with_score("lazy cat beside the fire", k=2, filter={"legs": {"$gte": 4}})
    assert found[0][0].id == "cat" and found[0][1] <= found[1][1]
    few = {"$or": [{"legs": 6}, {"name": {"$in": ["owl", "fox"]}}]}
    assert {document.id for document in store.similarity_search("field", k=5, filter=few)} == {"fox", "owl", "bee"}
    texts = store.similarity_search("field", k=5, where_document={"$contains": "night"})
    assert {document.id for document in texts} == {"owl", "cat"}


def test_retrievers(store):
    by_score = store.as_retriever(search_type="similarity_score_threshold", search_kwargs={"score_threshold": 0.3, "k": 5})
    assert by_score.invoke(ANIMALS["owl"])[0].id == "owl"
    diverse = store.as_retriever(search_type="mmr", search_kwargs={"k": 3, "fetch_k": 5})
    assert len({document.id for document in asyncio.run(diverse.ainvoke("lazy dog"))}) == 3


def test_documents_change(store):
    store.update_document("owl", Document(page_content="an eagle hunts by day", metadata={"legs": 2}, id="owl"))
    assert store.similarity_search("eagle by day", k=1)[0].id == "owl"
    store.delete(ids=["bee", "hen"])
    assert sorted(document.id for document in store.get_by_ids(["bee", "cat", "owl"])) == ["cat", "owl"]
    assert store.get(where={"legs": 4}, limit=1, offset=1)["ids"] == ["cat"]


def test_forks_diverge(store):
    fork = store.fork("animals-2")
    fork.delete(ids=["fox"])
    store.add_texts(["a new fox"], ids=["fox-2"])
    assert set(fork.get()["ids"]) == set(ANIMALS) - {"fox"}
    assert set(store.get()["ids"]) == {*ANIMALS, "fox-2"}


def test_hybrid_search():
    client = chromadb.HttpClient()
    schema = Schema().create_index(config=SparseVectorIndexConfig(embedding_function=Terms(), source_key=K.DOCUMENT),
                                   key="words")
    client.create_collection("animals", schema=schema, embedding_function=None)
    store = Chroma("animals", Words(), client=client, create_collection_if_not_exists=False)
    store.add_texts(list(ANIMALS.values()), metadatas=[{"legs": LEGS[name]} for name in ANIMALS], ids=list(ANIMALS))
    text = "lazy cat"
    dense, sparse = Knn(query=embed(text), return_rank=True, limit=20), Knn(query=text, key="words", return_rank=True)
    search = Search().where(K("legs") >= 4).rank(Rrf([dense, sparse], k=60)).limit(2).select(K.DOCUMENT, K.SCORE, K.METADATA)
    found = store.hybrid_search(search)
    assert [document.id for document in found] == ["cat", "fox"]
    assert [document.metadata["legs"] for document in found] == [4, 4]


def test_metadatas_are_plain(store):
    found = store.get(ids=["owl"], include=["metadatas", "embeddings"])
    assert found["metadatas"] == [{"legs": 2, "name": "owl"}]
    assert found["embeddings"][0] == pytest.approx(embed(ANIMALS["owl"]), abs=1e-6)
