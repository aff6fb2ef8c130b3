"""Own data in any config: data sets, heads, evaluators and schedule follow what was recognized in a folder."""
