"""A page on which people try the models of finished runs (extra `demo`)."""
