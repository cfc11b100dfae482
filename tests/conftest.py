pytest_plugins = ("simulator_fixture",)
