"""A sample of a collection in the place of the collection: what `persona plan` runs the phases on.

Photos are drawn without replacement, from every listed unit its share. Of a collection of many units a part
is listed, drawn at random; the number of photos in the others is then an estimate.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa

from curation.fingerprint import fingerprint, fingerprint_rows
from curation.run_folder import Run
from curation.sources.units import Unit
from curation.storage import parquet_footer, read_table, write_table

MOST_UNITS = 64  # listed
_LEAST_ROWS = 16  # of a fragment, so that models still see batches


@dataclass(frozen=True)
class Sample:
    """How many photos are drawn, by which seed, and for how many workers they should be work."""

    photos: int
    seed: int = 0
    workers: int = 1

    def units(self, units: Sequence[Unit]) -> list[Unit]:
        """The units that are listed, in their order."""
        if len(units) <= MOST_UNITS:
            return list(units)
        chosen = self._random("units").choice(len(units), MOST_UNITS, replace=False)
        return [units[place] for place in sorted(chosen.tolist())]

    def draw(
        self, listed: Sequence[tuple[str, int, str]], units: int, fragment_rows: int, run: Run
    ) -> list[tuple[str, int, str]]:
        """Writes the drawn rows of the listings (file, row group, key) as the run's one listing of a sample.

        Every worker finds at least two fragments where the sample is large enough, none of more than
        `fragment_rows`. `units` is how many the collection has. Returns the new listing.
        """
        files = list(dict.fromkeys(path for path, _, _ in listed))
        counts = [int(parquet_footer(path).num_rows) for path in files]
        random = self._random("rows")
        tables = []
        for path, count, share in zip(files, counts, self._shares(counts), strict=True):
            places = np.sort(random.choice(count, share, replace=False))
            tables.append(read_table(path).take(pa.array(places)))
        table = pa.concat_tables(tables).combine_chunks()
        key = fingerprint([asdict(self), [key for _, _, key in listed], fragment_rows])
        target = run.sample.path(key)
        rows = min(fragment_rows, max(_LEAST_ROWS, -(-table.num_rows // (2 * self.workers))))
        write_table(target, table, row_group_rows=rows)
        sampled = Sampled(table.num_rows, sum(counts), counts, units)
        run.drawn = asdict(sampled)
        parts = [table.slice(start, rows) for start in range(0, table.num_rows, rows)]
        return [
            (target, group, fingerprint_rows(tuple(row.values()) for row in part.to_pylist()))
            for group, part in enumerate(parts)
        ]

    def _shares(self, counts: Sequence[int]) -> list[int]:
        """How many photos of each unit are drawn: its share of all, rounded so that the sum fits.

        Inside a unit any photos may be drawn together. A draw that is spread evenly would part photos of
        one person that lie side by side, and how often people meet in the sample is what is to be learned.
        """
        total = sum(counts)
        wanted = min(self.photos, total)
        upto = np.cumsum([0, *counts]) * wanted // max(total, 1)
        return [int(share) for share in np.diff(upto)]

    def _random(self, what: str) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=int(fingerprint([what, self.seed]), 16)))


@dataclass(frozen=True)
class Sampled:
    """What was drawn: `photos` of the `listed` in the listed units (`counts` each) of `units`."""

    photos: int
    listed: int
    counts: list[int]
    units: int

    @property
    def collection(self) -> float:
        """Photos of the whole collection: counted where all units were listed, else estimated."""
        return self.listed / len(self.counts) * self.units
