"""What answers are worth: metrics of labels and probabilities, their intervals, and tests of differences."""
