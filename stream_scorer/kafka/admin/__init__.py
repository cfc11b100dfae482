"""Topics, access rights and limits of a cluster."""
