"""Downloads known data sets and unpacks them."""
