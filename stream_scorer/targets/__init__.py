"""Where callbacks go: the adapters behind `stream_scorer.callbacks.ports.Target`, each with its own way out."""
