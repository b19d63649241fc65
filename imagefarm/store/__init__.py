"""The SQL store: tables, engines, migrations, audit."""

from imagefarm.store.engine import Store, connection_of, db_now

__all__ = ["Store", "connection_of", "db_now"]
