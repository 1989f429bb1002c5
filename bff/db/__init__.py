"""The conversations' database: tables, migrations, queries and stores."""
