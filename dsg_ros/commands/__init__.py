"""One module per subcommand of ``python -m dsg_ros``; `dsg_ros.cli` holds the table and says what such a module provides."""
