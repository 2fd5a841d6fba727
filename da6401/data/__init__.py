"""From labelled images to batches on the device.

sources.py is the way in: a source (folder.py, digits.py, synthetic.py, one file each) gives image_sets.TrainingData,
and batches.py gives its batches. Files are found by name (layout.py, tree.py), read by images.py, many at once by
decode.py, and kept decoded in cache/; augment/ changes batches, fetch/ downloads.
"""
