"""Trains the points of a grid as processes on a Ray cluster, and collects the runs in one table."""
