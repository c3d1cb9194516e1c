"""What every package of the house may use: errors, files written whole, devices, processes, seeds, measuring."""
