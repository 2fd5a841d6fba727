"""The files that an exported model takes along: they run without da6401 and torch."""
