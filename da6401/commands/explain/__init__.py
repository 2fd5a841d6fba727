"""What a trained model sees, as pictures: only `da6401 explain` uses it."""
