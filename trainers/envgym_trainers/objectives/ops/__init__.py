"""Building blocks of objectives."""
