"""Random changes of training images, computed on whole batches on the device."""
