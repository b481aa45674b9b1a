"""Embeddings without a model: texts that share words are near each other."""

import re
import zlib

import numpy

DIMENSION = 64


def embed(text: str) -> list[float]:
    total = numpy.zeros(DIMENSION)
    for word in re.findall(r"\w+", text.lower()):
        total += numpy.random.default_rng(zlib.crc32(word.encode())).standard_normal(DIMENSION)
    return (total / (numpy.linalg.norm(total) or 1.0)).tolist()


def terms(text: str) -> dict[int, float]:
    """A sparse embedding: how often each word occurs, by a number made from the word."""
    counts: dict[int, float] = {}
    for word in re.findall(r"\w+", text.lower()):
        index = zlib.crc32(word.encode()) % 100_000
        counts[index] = counts.get(index, 0.0) + 1.0
    return counts


ANIMALS = {
    "fox": "the quick brown fox jumps over the lazy dog",
    "hen": "a hen sleeps in the barn beside the dog",
    "owl": "an owl hunts at night over the quiet field",
    "bee": "the bee visits every flower of the field",
    "cat": "a lazy cat sleeps beside the fire all night",
}
LEGS = {"fox": 4, "hen": 2, "owl": 2, "bee": 6, "cat": 4}
