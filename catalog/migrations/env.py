"""Alembic's entry: runs migrations on the connection that ``catalog.migrations`` hands over."""

from alembic import context

# Imported so that Base.metadata is complete.
import catalog.products.models  # noqa: F401
from catalog.db.columns import Base

attributes = context.config.attributes

if context.is_offline_mode():
    on_server = attributes["dialect"] != "sqlite"
    context.configure(
        dialect_name="mysql" if on_server else "sqlite",
        # Both servers' types are compiled by MySQL's dialect, here as on a connection.
        dialect_opts={"is_mariadb": attributes["dialect"] == "mariadb"} if on_server else {},
        target_metadata=Base.metadata,
        literal_binds=True,
        output_buffer=context.config.output_buffer,
    )
else:
    context.configure(
        connection=attributes["connection"],
        target_metadata=Base.metadata,
        # Alters of SQLite's tables are copies; its DDL is transactional, whatever Alembic thinks.
        render_as_batch=True,
        transactional_ddl=attributes["connection"].dialect.name == "sqlite",
    )

with context.begin_transaction():
    context.run_migrations()
