"""Files written whole and read back checked: arrays, run-lengths, .h5."""
