"""m2mdb: the database that AI programs keep their memory in."""
