"""`tools/dev bench`: client CPU per enrollment and per check-in cycle, against the crypto floor of the same run."""
