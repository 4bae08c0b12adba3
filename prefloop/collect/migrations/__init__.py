"""How the tables came to be what they are: Alembic's scripts, one a version, never edited once released."""
