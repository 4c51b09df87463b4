"""The training loop, its batches, and what a run leaves behind."""
