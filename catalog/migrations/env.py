"""Alembic environment: runs migrations on the connection that ``catalog.migrations`` passes."""

from alembic import context

# Imported so that Base.metadata is complete.
import catalog.products.models  # noqa: F401
from catalog.db.columns import Base

attributes = context.config.attributes

if context.is_offline_mode():
    on_server = attributes["dialect"] != "sqlite"
    context.configure(
        dialect_name="mysql" if on_server else "sqlite",
        # MySQL's dialect compiles both servers' types, here as on a connection.
        dialect_opts={"is_mariadb": attributes["dialect"] == "mariadb"} if on_server else {},
        target_metadata=Base.metadata,
        literal_binds=True,
        output_buffer=context.config.output_buffer,
    )
else:
    context.configure(
        connection=attributes["connection"],
        target_metadata=Base.metadata,
        # SQLite alters tables by copying them; its DDL is transactional, contrary to Alembic's
        # default.
        render_as_batch=True,
        transactional_ddl=attributes["connection"].dialect.name == "sqlite",
    )

with context.begin_transaction():
    context.run_migrations()
