"""Service 2: a high score reaches the campaign manager once. Planner, deliverer, and the targets they deliver to."""
