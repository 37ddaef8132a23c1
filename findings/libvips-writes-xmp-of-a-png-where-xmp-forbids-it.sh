#!/usr/bin/env bash
# libvips writes the XMP of a PNG as a zTXt chunk, where readers of XMP do not look.
#
# Versions   libvips 8.18.7 (pyvips 3.2.0, pyvips-binary 8.18.7), Pillow 12.0.0
# Expected   an iTXt chunk with the keyword XML:com.adobe.xmp (XMP specification part 3, 1.1.5; PNG third edition,
#            11.3.3.4), as Pillow, exiftool and others write it
# Seen       a zTXt chunk of that keyword. What a photo says of itself (plus:DataMining, DigitalSourceType, credit) is not
#            found by whoever looks where the specification says, and nothing tells it. zTXt is Latin-1 by PNG's rule: Pillow
#            reads it so, and names come out as other letters.
# For users  persona reads XMP of tEXt, zTXt and iTXt alike (shards/format/embedded.py), so a reservation outlives a resize by
#            libvips (tests/saved_by_libvips).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install -q pyvips==3.2.0 pyvips-binary==8.18.7 pillow==12.0.0
venv/bin/python - <<'PYTHON'
import io
import sys

import PIL
import pyvips
from PIL import Image

packet = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:plus="http://ns.useplus.org/ldf/xmp/1.0/" plus:DataMining="DMI-PROHIBITED" '
    'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" photoshop:Credit="Ännchen"/></rdf:RDF></x:xmpmeta>'
)
jpeg = io.BytesIO()
Image.new("RGB", (40, 30)).save(jpeg, "JPEG", xmp=packet.encode())
png = pyvips.Image.new_from_buffer(jpeg.getvalue(), "").write_to_buffer(".png")
chunks, at = [], 8
while at < len(png):
    length = int.from_bytes(png[at : at + 4], "big")
    if png[at + 8 :].startswith(b"XML:com.adobe.xmp\0"):
        chunks.append(png[at + 4 : at + 8].decode())
    at += 12 + length
with Image.open(io.BytesIO(png)) as image:
    image.load()
    read = image.info.get("XML:com.adobe.xmp", "")
print("libvips", ".".join(str(pyvips.version(part)) for part in range(3)), "Pillow", PIL.__version__)
print("XMP lies in", chunks)
print("credit by Pillow:", read.partition('Credit="')[2].partition('"')[0])
if chunks != ["zTXt"] or "Ännchen" in read:
    sys.exit("changed: libvips writes XMP of a PNG elsewhere, or Pillow reads it otherwise")
PYTHON
