"""The local store: content-addressed blobs and SQL records with lineage."""
