"""Storage in SQL: one implementation for SQLite and PostgreSQL.

What a method does is a plain function over a `Transaction` (`runs`, `tasks`, `calls`, `sessions`, `records`); a
`Database` runs it: `sqlite` in a thread that writes, `postgres` over asyncpg. The functions may be run again when a
transaction did not come through, so they keep nothing outside it.
"""
