"""WIDER Attribute: photographs of events, with the gender of each annotated person."""
