#!/usr/bin/env bash
# DuckDB writes a column of vectors that holds a NULL as Parquet that Arrow refuses to read.
#
# Versions   duckdb 2.0.1, pyarrow 26.0.1, polars 2.1.0
# Expected   a column FLOAT[n] of embeddings, NULL where a photo shows no face, is what others read as a list with nulls.
# Seen       COPY … TO writes n levels for a NULL instead of one: with two numbers a vector, 4 rows of which one is NULL have 8
#            levels, where Parquet asks for 7. DuckDB and polars read that; pyarrow, by which pandas, Hugging Face
#            datasets and Ray Data read, refuses the column. COPY itself says nothing.
# For users  a table of embeddings that went through DuckDB is known to be unreadable only where it is read. Cast the column
#            to FLOAT[] in the COPY. persona reads of a collection's Parquet only the columns that it uses, so a photo
#            beside such a column is read (tried: `persona collection`, columns key, image, license and this one).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install -q duckdb==2.0.1 pyarrow==26.0.1 polars==2.1.0
venv/bin/python - <<'PYTHON'
import sys

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

print("duckdb", duckdb.__version__, "pyarrow", pa.__version__, "polars", pl.__version__)
duckdb.sql("CREATE TABLE faces (photo VARCHAR, vector FLOAT[2])")
duckdb.sql("INSERT INTO faces VALUES ('a', [1, 2]), ('b', NULL), ('c', [3, 4]), ('d', [5, 6])")
WRITTEN = [[1, 2], None, [3, 4], [5, 6]]
QUERIES = {
    "FLOAT[2] with a NULL": "SELECT * FROM faces",
    "FLOAT[2] without": "SELECT * FROM faces WHERE vector IS NOT NULL",
    "FLOAT[] with a NULL": "SELECT photo, vector::FLOAT[] AS vector FROM faces",
}
READERS = {
    "duckdb": lambda: [row[0] for row in duckdb.sql("SELECT vector FROM 'faces.parquet' ORDER BY photo").fetchall()],
    "polars": lambda: pl.read_parquet("faces.parquet")["vector"].to_list(),
    "pyarrow": lambda: pq.read_table("faces.parquet")["vector"].to_pylist(),
}
seen = {}
for name, query in QUERIES.items():
    duckdb.sql(f"COPY ({query}) TO 'faces.parquet' (FORMAT parquet)")
    levels = pq.ParquetFile("faces.parquet").metadata.row_group(0).column(1).num_values
    expected = [vector for vector in WRITTEN if vector or "without" not in name]
    for reader, read in READERS.items():
        try:
            right = [vector and list(vector) for vector in read()] == expected
            said = "right" if right else "WRONG"
        except (pa.ArrowInvalid, pl.exceptions.PolarsError, duckdb.Error) as error:
            said = f"refused: {error}"
        seen[name, reader] = said.partition(":")[0]
        print(f"{name:21} {levels} levels, {reader:8} {said}")
wanted = {(name, reader): "right" for name in QUERIES for reader in READERS}
wanted["FLOAT[2] with a NULL", "pyarrow"] = "refused"
if seen != wanted:
    sys.exit("changed: who reads what")
PYTHON
