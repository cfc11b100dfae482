"""Where callbacks go: the adapters behind `stream_scorer.campaign.ports.Target`, each with its own way out."""
