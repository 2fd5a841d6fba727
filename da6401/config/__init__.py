"""The configuration: schema, composition by Hydra, and every check that needs no torch."""
