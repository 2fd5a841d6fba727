"""Decoded images and frozen features on disk, addressed by content, locked and bounded in size."""
