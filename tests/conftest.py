pytest_plugins = ("kafka_fixture", "simulator_fixture")
