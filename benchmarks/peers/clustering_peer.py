"""DBSCAN and HDBSCAN of scikit-learn: clustering_peer.py METHOD FOLDER FACES CUT...

Reads FOLDER/peer-pairs.npz or FOLDER/rows.npy, writes FOLDER/METHOD-labels.npz: an array for each setting.
Prints {"cpu_s"} of all settings together. Faces that the method calls noise are clusters of their own.
"""

import json
import sys
import time

import numpy as np
from scipy.sparse import coo_array
from sklearn.cluster import DBSCAN, HDBSCAN

method, folder, faces, *words = sys.argv[1:]
count, cuts = int(faces), [float(word) for word in words]
found = {}
if method == "dbscan":
    pairs = np.load(f"{folder}/peer-pairs.npz")
    began = time.process_time()
    for cut in cuts:
        keep = pairs["cosine"] >= cut
        left, right = pairs["left"][keep], pairs["right"][keep]
        distance = np.maximum(1 - pairs["cosine"][keep], 1e-6)
        both = (np.r_[distance, distance], (np.r_[left, right], np.r_[right, left]))
        graph = coo_array(both, shape=(count, count)).tocsr()
        for least in (2, 4):
            clusters = DBSCAN(eps=1 - cut, min_samples=least, metric="precomputed").fit(graph)
            found[f"{cut:g}, {least}"] = clusters.labels_
else:
    rows = np.load(f"{folder}/rows.npy")
    began = time.process_time()
    for least in (2, 3):
        # On unit vectors the Euclidean distance orders pairs as the cosine does. All pairs at once: the trees
        # that it takes by itself do not end on 512 numbers a face.
        found[f"min {least}"] = (
            HDBSCAN(min_cluster_size=least, min_samples=1, algorithm="brute", copy=True).fit(rows).labels_
        )
seconds = time.process_time() - began
for labels in found.values():
    noise = labels < 0
    labels[noise] = labels.max() + 1 + np.arange(noise.sum())
np.savez(f"{folder}/{method}-labels.npz", **found)
print(json.dumps({"cpu_s": seconds}))
