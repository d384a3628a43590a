"""Decodes histograms with hdrhistogram for Python alone, and merges those of one name: lines of {"name", "histogram"} in, one JSON
object of names out, with the seconds in each and [lowest rate in kbit/s, seconds] of each step that has any."""

import json
import sys

from hdrh.histogram import HdrHistogram

merged = {}
for line in sys.stdin:
    item = json.loads(line)
    alone = HdrHistogram.decode(item["histogram"])
    histogram = merged.setdefault(item["name"], HdrHistogram(1, 8_589_934_591, 2))
    before = histogram.get_total_count()
    histogram.decode_and_add(item["histogram"])
    assert histogram.get_total_count() == before + alone.get_total_count()


def steps(histogram):
    for value in histogram.get_recorded_iterator():
        yield histogram.get_lowest_equivalent_value(value.value_iterated_to), value.count_at_value_iterated_to


answer = {
    name: {
        "seconds": histogram.get_total_count(),
        "steps": list(steps(histogram)),
        "p95_kbps": histogram.get_value_at_percentile(95),
    }
    for name, histogram in merged.items()
}
json.dump(answer, sys.stdout)
