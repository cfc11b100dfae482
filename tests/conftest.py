pytest_plugins = ("kafka_fixture", "simulator_fixture", "support_worker")
