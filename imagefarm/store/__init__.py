"""The SQL store: tables, engines, migrations, audit."""

from sqlalchemy.orm import Session

from imagefarm.store.engine import DATABASE_AWAY, Store, connection_of, database_time, db_now

__all__ = ["DATABASE_AWAY", "Session", "Store", "connection_of", "database_time", "db_now"]
