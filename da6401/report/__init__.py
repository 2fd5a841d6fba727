"""Pages and figures from finished folders; it never trains and never imports torch."""
