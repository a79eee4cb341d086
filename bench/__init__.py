"""How fast the platform is, measured with real processes on real pictures: `python -m bench`."""
