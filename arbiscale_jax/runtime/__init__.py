"""What every part may use: the device mesh, keys of random numbers, whole files, locks, and progress on the screen."""
