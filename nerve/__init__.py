"""What the scripts share; nobody runs it. Rooms form floors: each imports those before it.

command, machine, files, records, scoring, frames, prediction, training; phantom.
"""
