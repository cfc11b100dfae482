"""Demo (``stream-scorer demo``): many contacts through the whole pipeline on this machine, all accounted for.

`run` is the sequence of steps; `environment` starts and stops Kafka, servers and workers; `contacts` generates valid
and invalid contacts; `producer` sends them to the topic; `monitor` reads the state of worker and broker, `progress`
shows it; `checks` and `callbacks_check` verify the result; `signals` handles Ctrl-C.
"""
