"""Runtime of every service: clock, threads, admin server."""
