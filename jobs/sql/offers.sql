-- What live workers have: labels, queues (none: all), slots, and whether they take new tasks.
SELECT capabilities, queues, slots, state = 'online' FROM workers
WHERE state IN ('online', 'draining', 'cordoned')
    AND last_heartbeat > statement_timestamp() - make_interval(secs => %(lease_seconds)s)
