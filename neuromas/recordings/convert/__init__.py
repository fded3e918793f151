"""Recordings from foreign formats: one module per format, found by name, by a file's ending, or as another package's plug-in."""
