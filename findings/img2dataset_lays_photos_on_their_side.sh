#!/usr/bin/env bash
# img2dataset 1.47.0 (opencv-python-headless 4.14.0.94, exifread-nocycle 3.0.1): photos that are turned by EXIF come out lying.
#
# A JPEG whose EXIF says "turn by 90° clockwise" is downloaded with default settings. Expected: upright pixels, or bytes
# that still say how to turn them. Seen: pixels as they lay in the file, no EXIF, status "success"; the turn is left only in
# words in KEY.json ("Image Orientation": "Rotated 90 CW"), which no reader of WebDataset looks at. With
# disable_all_reencoding the bytes keep their EXIF, and the same words stand in KEY.json: who turns by the words alone
# turns those twice. For users of persona: such collections are turned by the record where bytes have no EXIF.
set -euo pipefail
place=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$place"' EXIT
cd "$place"
python3.11 -m venv venv
venv/bin/pip install -q "img2dataset==1.47.0" "opencv-python-headless==4.14.0.94" "exifread-nocycle==3.0.1" "pillow==12.0.0"
mkdir photos
cat > run.py <<'PY'
import io, json, sys, tarfile
import numpy as np
from PIL import Image

STORED = np.zeros((300, 400, 3), np.uint8)
STORED[:, :200, 0] = 255  # red on the left as it lies in the file, on top when it is upright


def main():
    from importlib.metadata import version

    from img2dataset import download

    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(STORED).save("photos/turned.jpg", quality=95, exif=exif)
    with open("urls.txt", "w") as file:
        file.write(f"http://127.0.0.1:{sys.argv[1]}/turned.jpg\n")
    print("img2dataset", version("img2dataset"), "opencv", version("opencv-python-headless"))
    seen = {}
    for name, raw in (("default", False), ("disable_all_reencoding", True)):
        download(url_list="urls.txt", output_folder=name, output_format="webdataset", processes_count=1,
                 thread_count=1, resize_mode="no", disable_all_reencoding=raw, enable_wandb=False)
        with tarfile.open(f"{name}/00000.tar") as tar:
            members = {m.name.partition(".")[2]: tar.extractfile(m).read() for m in tar.getmembers()}
        image, record = Image.open(io.BytesIO(members["jpg"])), json.loads(members["json"])
        words = json.loads(record["exif"]).get("Image Orientation")
        seen[name] = (image.size, image.getexif().get(0x0112), words, record["status"])
        print(f"{name}: size {image.size}, EXIF orientation {seen[name][1]}, record {words!r}, {record['status']}")
    wanted = {
        "default": ((400, 300), None, "Rotated 90 CW", "success"),
        "disable_all_reencoding": ((400, 300), 6, "Rotated 90 CW", "success"),
    }
    if seen != wanted:
        sys.exit("this has changed")
    print("as described: upright it would be (300, 400)")


if __name__ == "__main__":
    main()
PY
port=$(python3.11 -c "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])")
python3.11 -m http.server "$port" --bind 127.0.0.1 --directory photos > /dev/null 2>&1 &
server=$!
sleep 1
NO_PROXY=127.0.0.1 no_proxy=127.0.0.1 venv/bin/python run.py "$port" 2> errors.txt || { tail -5 errors.txt; exit 1; }
