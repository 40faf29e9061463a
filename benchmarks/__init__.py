"""DTS beside other queues and beside bare SQL, on one PostgreSQL: `make bench`."""
