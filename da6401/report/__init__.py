"""Pages and figures from finished folders; it never trains and imports no torch at the top."""
