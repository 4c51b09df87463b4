"""Scores with their intervals, and plots."""
