"""What a command of persona imports, imported: the process that commands are forked from loads this."""

# ruff: noqa: F401

import faiss
import fsspec.implementations.local
import pandas
import scipy.sparse.csgraph

import curation.captions.captioner
import curation.curate
import curation.identities.assign
import curation.identities.collect
import curation.identities.extend
import curation.identities.grouping
import curation.outfits.judge_identity
import curation.pipeline_file
import curation.retry
import curation.status
import curation.vlm.captioner
import curation.vlm.client
import curation.vlm.judge
import persona
import shards.tools.actions
import shards.tools.forget
import shards.tools.merge
import shards.tools.reshard
import shards.tools.split
import shards.tools.verify
import tests.drawn_models
