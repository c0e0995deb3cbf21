"""Many runs: the points of a grid as processes on machines of a Ray cluster, and all of them in one table."""
