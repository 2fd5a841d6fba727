"""The formats of `da6401 export` and what is shipped beside them. What may enter: one module a format, its checks."""
