"""The user's own images, listed in a CSV or Parquet file."""
