"""Files over HTTP, whole and verified or absent; used by data sets and by weights."""
