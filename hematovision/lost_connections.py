"""What PostgreSQL and its client are told, so that a machine that vanishes from the network holds nobody up.

Without it a transaction of such a machine keeps its locks for two hours, which is when TCP begins to doubt; a sweep
that wants one of its rows waits as long. Nothing here waits for anything else within a transaction for a minute.
"""

POSTGRESQL = {
    "connect_timeout": 5,
    # The other way round: a server that vanished is given up after a minute.
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
    "options": "-c idle_in_transaction_session_timeout=60s -c tcp_keepalives_idle=60 -c tcp_keepalives_interval=10"
    # A helper's start costs more than a page's query.
    " -c max_parallel_workers_per_gather=0",
}
