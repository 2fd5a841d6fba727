"""A gRPC proxy for a study's database: many workers share its few connections and its cache.

python -m da6401.sweep.proxy --port 13000       (the database's address is in DA6401_STORAGE)

Workers use it as hydra.sweeper.storage=grpc://HOST:13000. It has no passwords: keep it inside the cluster's network.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import optuna

from da6401.errors import UserError
from da6401.study.storage import open_storage


def main() -> int:
    """Serve until stopped; during an outage of the database the proxy waits, for all workers."""
    given = argparse.ArgumentParser(prog="python -m da6401.sweep.proxy", description=__doc__)
    given.add_argument("--host", default="localhost", help="the address to listen on; 0.0.0.0 for other machines")
    given.add_argument("--port", type=int, default=13000)
    given.add_argument(
        "--minutes", type=float, default=10.0, help="how long to wait for a database that does not answer"
    )
    given.add_argument("--threads", type=int, default=32, help="calls that are served at the same time")
    options = given.parse_args()
    address = os.environ.get("DA6401_STORAGE", "")
    try:
        if not address.partition("+")[0].startswith(("postgresql", "mysql", "sqlite")):
            raise UserError("DA6401_STORAGE: name the database, as in postgresql://user:password@host/name")
        storage = open_storage(address, minutes=options.minutes)
    except UserError as error:
        print(f"da6401: {error}", file=sys.stderr)
        return error.exit_code
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # gRPC, since Optuna 4.2
    pool = ThreadPoolExecutor(max_workers=options.threads)
    print(f"serving on {options.host}:{options.port}", flush=True)
    optuna.storages.run_grpc_proxy_server(storage, host=options.host, port=options.port, thread_pool=pool)
    return 0


if __name__ == "__main__":
    sys.exit(main())
