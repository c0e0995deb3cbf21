"""The meaning of a config: `parse_recipe` reads a config once, and all later code reads the `Recipe`."""
