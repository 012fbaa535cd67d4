"""Public data sets, one module per layout."""
