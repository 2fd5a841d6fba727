"""From a folder of images, a download or a generator to batches on the device."""
