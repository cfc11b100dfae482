"""``stream-scorer demo``: the whole way of many contacts, on this machine alone, accounted for to the last one.

`run` is the course of events; `services` starts and stops what it needs; `contacts` makes the contacts, good and bad;
`feeding` puts them on the topic; `watching` asks the worker and the broker how far things are, `progress` shows it;
`outcomes` judges the result; `interrupts` makes Ctrl-C clean up.
"""
