#!/usr/bin/env bash
# s3fs and pyarrow put half a file in the place of a whole one when the block that writes it fails.
#
# Versions   s3fs 2026.9.0, pyarrow 26.0.1, obstore 0.12.1, smart-open 9.0.2, moto 5.2.5
# Expected   an object appears when its upload is completed, and S3 lets a client leave an upload off. So an exception
#            inside of `with` leaves the object that was there, as smart_open and obstore.open_writer do.
# Seen       `with fs.open(…, "wb")` of s3fs and of obstore.fsspec, and pyarrow's open_output_stream, complete the upload with
#            what was written so far. pyarrow.parquet.ParquetWriter writes a footer too, on a disk as in a store: what is
#            left is a valid file, which every reader takes for the table.
# For users  a preemption or a full batch in the middle of a shard or a table costs the version that was there, and nothing
#            later says that rows are missing. fsspec can do it: open(…, autocommit=False), then file.commit(), as persona
#            writes shards (shards/format/atomic_file.py); its tables are whole bytes in one request.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install -q s3fs==2026.9.0 pyarrow==26.0.1 obstore==0.12.1 'smart-open[s3]==9.0.2' 'moto[server]==5.2.5'
export AWS_ACCESS_KEY_ID=any AWS_SECRET_ACCESS_KEY=any AWS_DEFAULT_REGION=us-east-1
venv/bin/python - 2> log <<'PYTHON' || { tail -3 log; exit 1; }
import importlib.metadata
import sys

import obstore
import obstore.fsspec
import obstore.store
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import s3fs
import smart_open
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer("127.0.0.1", 0)
server.start()
url = "http://{}:{}".format(*server.get_host_and_port())
store = s3fs.S3FileSystem(endpoint_url=url, use_listings_cache=False)
store.mkdir("bucket")
arrow = pyarrow.fs.S3FileSystem(
    endpoint_override=url, scheme="http", region="us-east-1", access_key="any", secret_key="any"
)
PLAIN = {"endpoint": url, "region": "us-east-1", "client_options": {"allow_http": True}}
table = pa.table({"photo": range(1000)})


def parquet(place, file_system=None):
    """Writes the first of two thousand rows, and is interrupted."""
    with pq.ParquetWriter(place, table.schema, filesystem=file_system) as writer:
        writer.write_table(table)
        raise InterruptedError


def half(opened):
    """Writes the first half of a file, and is interrupted."""
    with opened as file:
        file.write(b"half")
        raise InterruptedError


session = {"client": __import__("boto3").client("s3", endpoint_url=url)}
WAYS = {
    "s3fs": lambda: half(store.open("bucket/object", "wb")),
    "pyarrow.fs": lambda: half(arrow.open_output_stream("bucket/object")),
    "obstore.fsspec": lambda: half(obstore.fsspec.FsspecStore("s3", **PLAIN).open("bucket/object", "wb")),
    "ParquetWriter": lambda: parquet("bucket/object", arrow),
    "obstore": lambda: half(obstore.open_writer(obstore.store.S3Store("bucket", **PLAIN), "object")),
    "smart_open": lambda: half(smart_open.open("s3://bucket/object", "wb", transport_params=session)),
}
print(*(f"{name} {importlib.metadata.version(name)}" for name in ("s3fs", "pyarrow", "obstore", "smart-open")))
seen = {}
for name, write in WAYS.items():
    store.pipe_file("bucket/object", b"the whole object of before")
    try:
        write()
    except InterruptedError:
        pass
    left = store.cat_file("bucket/object")
    rows = f"a valid table of {pq.read_table(pa.BufferReader(left)).num_rows} of 2000 rows" if left[:4] == b"PAR1" else left
    seen[name] = left == b"the whole object of before"
    print(f"{name:15} leaves {rows}")
try:
    parquet("disk.parquet")
except InterruptedError:
    pass
print(f"{'on a disk':15} leaves a valid table of {pq.read_table('disk.parquet').num_rows} of 2000 rows")
server.stop()
if seen != {name: name in ("obstore", "smart_open") for name in WAYS}:
    sys.exit("changed: what a failed block leaves")
PYTHON
