"""What every service needs to run: clock, threads, admin server."""
