"""llama-index-vector-stores-chroma: its index, every filter of its translator, and what it deletes by."""

import chromadb
import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters, VectorStoreQuery
from llama_index.core.vector_stores.types import VectorStoreQueryMode
from llama_index.vector_stores.chroma import ChromaVectorStore

from words import ANIMALS, LEGS, embed


class Words(BaseEmbedding):
    def _get_text_embedding(self, text):
        return embed(text)

    def _get_query_embedding(self, query):
        return embed(query)

    async def _aget_query_embedding(self, query):
        return embed(query)


def nodes():
    return [
        TextNode(id_=name, text=text, metadata={"legs": LEGS[name], "name": name}, embedding=embed(text),
                 relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id="field" if "field" in text else "farm")})
        for name, text in ANIMALS.items()
    ]


@pytest.fixture
def store():
    store = ChromaVectorStore.from_params(collection_name="animals", host="localhost", port="8000")
    assert store.add(nodes()) == list(ANIMALS)
    return store


def query(text, **options):
    options.setdefault("similarity_top_k", 5)
    return VectorStoreQuery(query_embedding=embed(text), **options)


def test_an_index_answers(store):
    index = VectorStoreIndex.from_vector_store(store, embed_model=Words())
    found = index.as_retriever(similarity_top_k=2).retrieve("lazy cat beside the fire")
    assert found[0].node_id == "cat" and found[0].score >= found[1].score
    assert found[0].text == ANIMALS["cat"] and found[0].metadata["legs"] == 4


def test_documents_are_chunked_and_inserted():
    collection = chromadb.HttpClient().create_collection("notes", embedding_function=None)
    storage = StorageContext.from_defaults(vector_store=ChromaVectorStore(chroma_collection=collection))
    index = VectorStoreIndex(nodes=[], storage_context=storage, embed_model=Words())
    index.insert_nodes(nodes())
    assert collection.count() == 5
    index.delete_ref_doc("field")
    assert set(collection.get()["ids"]) == {"fox", "hen", "cat"}


OPERATORS = [
    (FilterOperator.EQ, 4, {"fox", "cat"}), (FilterOperator.NE, 4, {"hen", "owl", "bee"}),
    (FilterOperator.GT, 4, {"bee"}), (FilterOperator.GTE, 4, {"fox", "cat", "bee"}),
    (FilterOperator.LT, 4, {"hen", "owl"}), (FilterOperator.LTE, 4, {"fox", "cat", "hen", "owl"}),
    (FilterOperator.IN, [2, 6], {"hen", "owl", "bee"}), (FilterOperator.NIN, [2, 6], {"fox", "cat"}),
]


@pytest.mark.parametrize(("operator", "value", "expected"), OPERATORS)
def test_every_operator(store, operator, value, expected):
    filters = MetadataFilters(filters=[MetadataFilter(key="legs", operator=operator, value=value)])
    assert set(store.query(query("field", filters=filters)).ids) == expected
    assert {node.node_id for node in store.get_nodes(None, filters=filters)} == expected


def test_nested_filters(store):
    either = MetadataFilters(condition=FilterCondition.OR, filters=[
        MetadataFilter(key="name", value="owl"), MetadataFilter(key="legs", operator=FilterOperator.GT, value=4)])
    both = MetadataFilters(condition=FilterCondition.AND, filters=[
        either, MetadataFilter(key="name", operator=FilterOperator.NE, value="bee")])
    assert store.query(query("night", filters=both)).ids == ["owl"]


def test_diverse_results(store):
    found = store.query(query("lazy dog", mode=VectorStoreQueryMode.MMR, similarity_top_k=3), mmr_threshold=0.3)
    assert len(set(found.ids)) == 3


def test_nodes_are_deleted_and_cleared(store):
    store.delete_nodes(["owl"])
    store.delete_nodes(["fox", "hen"], filters=MetadataFilters(filters=[MetadataFilter(key="legs", value=4)]))
    assert {node.node_id for node in store.get_nodes(None)} == {"hen", "bee", "cat"}
    store.clear()
    assert store.get_nodes(None) == []
