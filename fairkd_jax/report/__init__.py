"""Tables, sentences and pictures about runs and data."""
