"""What a mix scores: scorer, candidate, batch norm, metrics, intervals, journal."""
