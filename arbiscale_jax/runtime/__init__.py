"""What every part may use: the device mesh, keys of random numbers, files that are written whole, locks."""
