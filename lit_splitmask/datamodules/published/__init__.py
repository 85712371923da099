"""Published datasets, each read in its official layout. One file per dataset, or per family of datasets."""
