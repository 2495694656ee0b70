"""The parts of `bench/speed.py`: what is measured, and how cases take turns."""
