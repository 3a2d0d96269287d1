"""Contains the command line: flags, files and messages around training and inference."""
