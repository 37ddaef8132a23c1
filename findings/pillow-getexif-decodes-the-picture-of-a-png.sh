#!/usr/bin/env bash
# Pillow decodes a whole PNG when it is asked for EXIF.
#
# Packages:  Pillow 13.0.0
# Expected:  Image.open() reads the header, and getexif() metadata: so a program can refuse a picture by its size, or
#            ask which way up it is, before any pixel is decoded. Of a JPEG of the same size that is so.
# Seen:      getexif() of a PNG without an eXIf chunk before its pixels loads the picture, in case one stands behind
#            them: 100 megapixels of a file of some kB become 95 MiB of memory.
# For users: a limit on pixels that is checked after getexif(), or ImageOps.exif_transpose() before it, is no limit.
#            persona walks the chunks itself (shards/format/embedded.py).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install -q pillow==13.0.0
venv/bin/python - <<'PYTHON'
from PIL import Image

Image.new("L", (10_000, 10_000)).save("large.png")
Image.new("L", (10_000, 10_000)).save("large.jpg")
PYTHON
measure() {
  venv/bin/python - "$1" <<'PYTHON'
import resource
import sys

from PIL import Image

Image.MAX_IMAGE_PIXELS = None
image = Image.open(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
image.getexif()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
PYTHON
}
png=$(measure large.png)
jpg=$(measure large.jpg)
venv/bin/python -c 'import PIL; print("Pillow", PIL.__version__)'
echo "memory that getexif() took, MiB: $png of a PNG of $(stat -c %s large.png) bytes, $jpg of a JPEG"
if [ "$png" -lt 50 ] || [ "$jpg" -gt 10 ]; then
  echo "changed: getexif() of a PNG no longer decodes it"
  exit 1
fi
