"""`chroma browse` of the official package: it lists, pages and searches by `/search`, which Chroma's own server lacks."""

import os
import sys

import pytest

from terminal import DOWN, ENTER, ESCAPE, Terminal

RECORDS = 150

pytestmark = pytest.mark.ochre_only(reason="Chroma's own server has no search")


@pytest.fixture
def browser(client, server, tmp_path):
    collection = client.create_collection("fruit", embedding_function=None)
    collection.add(
        ids=[f"id{number:04}" for number in range(RECORDS)],
        embeddings=[[float(number), 1.0] for number in range(RECORDS)],
        documents=[f"{'apple' if number % 50 == 20 else 'quince'} {number}" for number in range(RECORDS)],
        metadatas=[{"kind": "pear" if number == 70 else "plum"} for number in range(RECORDS)],
    )
    chroma = os.path.join(os.path.dirname(sys.executable), "chroma")
    # Its settings lie in the home directory.
    terminal = Terminal([chroma, "browse", "fruit", "--host", f"http://127.0.0.1:{server.port}"], {"HOME": str(tmp_path)})
    terminal.wait("id0000", f"/ {RECORDS}")
    yield terminal
    terminal.press(ESCAPE, ESCAPE, ESCAPE)
    assert terminal.end() == 0


def test_records_are_listed_and_paged(browser):
    browser.wait("apple 20", '{"kind":"plum"}', "(100 loaded)")
    for row in range(0, RECORDS - 1, 25):
        browser.press(*[DOWN] * min(25, RECORDS - 1 - row))
    browser.wait(f"id{RECORDS - 1:04}", f"({RECORDS} loaded)")


@pytest.mark.parametrize(("fields", "found"), [
    ([([], "id0003")], ["id0003"]),
    ([([DOWN], "apple")], ["id0020", "id0070", "id0120"]),
    ([([DOWN, DOWN], "kind"), (["\x1b[C", "\x1b[C"], "pear")], ["id0070"]),
])
def test_records_are_searched(browser, fields, found):
    browser.press("s")
    browser.wait("Search Records")
    for way, text in fields:
        browser.press(*way, "e", *text, ESCAPE)
    browser.press(ENTER)
    browser.wait(*found, unwanted="Search Records")
    browser.wait(unwanted="id0000")
    assert browser.text().count("id0") == len(found)
