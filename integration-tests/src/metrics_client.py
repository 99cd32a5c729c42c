"""Reads metrics as a strict client of OpenMetrics does, over HTTP and compressed: once as OpenMetrics, once in the text format.

Prints the series of one that the other lacks, the families with their types and units, and the names of agents.
"""

import gzip
import sys
import urllib.request

from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics

ACCEPT = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


def read(headers):
    with urllib.request.urlopen(urllib.request.Request(sys.argv[1], headers=headers)) as answer:
        body = answer.read()
        if answer.headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        return answer.headers["Content-Type"], body.decode()


def series(families):
    """All series. Upper bounds of buckets are compared as numbers."""
    found = set()
    for family in families:
        for sample in family.samples:
            labels = {name: float(value) if name == "le" else value for name, value in sample.labels.items()}
            found.add((sample.name, tuple(sorted(labels.items()))))
    return found


kind, text = read({"Accept": ACCEPT, "Accept-Encoding": "gzip"})
assert kind.startswith("application/openmetrics-text; version=1.0.0"), kind
strict = list(openmetrics.text_string_to_metric_families(text))
kind, text = read({})
assert kind.startswith("text/plain"), kind
plain = list(parser.text_string_to_metric_families(text))

for sample in sorted(series(strict) ^ series(plain), key=repr):
    print("only in one of them", sample)
for family in strict:
    print(family.type, family.name, family.unit)
for agent in sorted({sample.labels.get("agent", "") for family in strict for sample in family.samples}):
    print("agent", agent)
