"""Reading a dataset for a training: opened by its index, in a global order, decoded into batches.

dataset_place   where the files lie: a folder, or a URL
folder          a dataset, opened: samples by number
source          what a loader reads, and one pass through it
order           the order of an epoch
revisions       orders and positions across what `forget` took out
steps           which places of an epoch each rank reads
pairs           a reference and a target of each group
buckets         pairs, so that a batch has one size
mixture         several sources as one, each in its share
decode          one photo into a slot of a batch
photo_batches   pictures, label maps and records as arrays
loader          batches, read and decoded by threads
torch_dataset   batches for torch's trainers
"""
