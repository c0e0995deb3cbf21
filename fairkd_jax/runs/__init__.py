"""The folder of a run: its files, its checkpoints, its model and its data."""
