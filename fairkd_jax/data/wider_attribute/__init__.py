"""WIDER Attribute: photographs of events, with the gender of the persons in them."""
