"""Networks, each a list of named stages and a head, and their pretrained weights."""
