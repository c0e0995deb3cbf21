"""The project's configs, of which `--config NAME` names one; see `base` for all keys."""
