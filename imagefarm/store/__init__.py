"""The SQL store: tables, engines, migrations, audit."""

from imagefarm.store.engine import Store, db_now

__all__ = ["Store", "db_now"]
