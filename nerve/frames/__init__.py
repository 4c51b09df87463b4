"""Frames in, fitted to a network and back, split by subject; overlays."""
