"""From frames to masks, and the limits that decide."""
